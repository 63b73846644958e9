# SPDX-License-Identifier: BSD-2-Clause
"""A file system of its own in a file: one that can be full, without inodes, read only, broken, or lose its power.

    with Disk(path, size="64M", kind="ext4") as disk:   # mounted at path, which must be an empty directory; needs root
        disk.fill(); disk.clear()                       # no byte left; again as before
        disk.power_off(); disk.power_on()               # everything not synced is gone, as at a power failure

    with Disk(path, kind="btrfs", on=other) as disk:    # its image is on an XFS disk, which can copy it in no time
        disk.cut(); disk.power_on()                     # the disk as it was at cut(), whatever was done since
"""
import contextlib
import fcntl
import os
import pathlib
import shutil
import struct
import subprocess

from lib.wait import wait_until

SHUTDOWN = 0x8004587d  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
NO_FLUSH = 2  # nothing is written any more, not even the log
FICLONE = 0x40049409
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}


def size_of(text):
    return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]


class Disk:
    def __init__(self, path, size="64M", kind="ext4", make=(), options="loop", on=None):
        self.path = pathlib.Path(path)
        self.image = (on.path if on else self.path.parent) / f"{self.path.name}.img"
        self.copy = self.image.with_suffix(".cut")
        self.options = options + (",nouuid" if kind == "xfs" else "")  # somebody may hold what it was before a power failure
        self.path.mkdir(exist_ok=True)
        with open(self.image, "wb") as f:
            f.truncate(size_of(size))
        subprocess.run([*MAKE[kind], *make, str(self.image)], check=True, stdout=subprocess.DEVNULL)
        self.mount()
        if (self.path / "lost+found").exists():
            (self.path / "lost+found").rmdir()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def mount(self):
        subprocess.run(["mount", "-o", self.options, str(self.image), str(self.path)], check=True)

    def unmount(self):
        """Waits for the last process that uses it."""
        def done():
            return subprocess.run(["umount", str(self.path)], stderr=subprocess.DEVNULL, check=False).returncode == 0
        wait_until(done, lambda: f"umount {self.path}", 20, 0.05)

    def close(self, keep=False):
        """Take it away, used or not; keep: the image stays."""
        subprocess.run(["umount", "-l", str(self.path)], stderr=subprocess.DEVNULL, check=False)
        if not keep:
            self.image.unlink(missing_ok=True)
            for directory in (self.path, self.path.parent):  # if the site is gone, but for what was mounted
                with contextlib.suppress(OSError):
                    directory.rmdir()

    def remount(self, options):
        """For example "ro": fails with EBUSY while a file is open for writing."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def fill(self, leave=0):
        """Take all free bytes but leave."""
        with open(self.path / ".filler", "ab") as f:
            n = 64 << 20
            while n >= 512:
                free = os.statvfs(self.path)
                if leave and free.f_bavail * free.f_frsize - n < leave:
                    n //= 2
                    continue
                try:
                    os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, n)
                except OSError:
                    n //= 2
            os.fsync(f.fileno())

    def fill_inodes(self):
        """Take all inodes."""
        (self.path / ".inodes").mkdir(exist_ok=True)
        try:
            for i in range(1 << 20):
                os.close(os.open(self.path / ".inodes" / str(i), os.O_CREAT | os.O_WRONLY))
        except OSError:
            pass

    def clear(self):
        """Give back what fill and fill_inodes took."""
        (self.path / ".filler").unlink(missing_ok=True)
        if (self.path / ".inodes").exists():
            for p in (self.path / ".inodes").iterdir():
                p.unlink()
            (self.path / ".inodes").rmdir()

    def break_(self):
        """From now on every access fails with EIO, and nothing that was not written yet ever will be."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_FLUSH))
        finally:
            os.close(fd)

    power_off = break_

    def cut(self):
        """Keep what is on the disk at this moment: what power_on() will find."""
        with open(self.image, "rb") as src, open(self.copy, "wb") as dst:
            fcntl.ioctl(dst, FICLONE, src.fileno())

    def power_on(self):
        """What is on the disk, as found at the next boot. Nobody may use it any more."""
        self.unmount()
        if self.copy.exists():
            self.copy.replace(self.image)
        self.mount()
        try:
            (self.path / ".on").touch()
        except OSError:  # the dead file system is still there: somebody's mount namespace was copied from ours meanwhile
            self.unmount()
            shutil.copyfile(self.image, self.copy)
            self.copy.replace(self.image)
            self.mount()
            (self.path / ".on").touch()
        (self.path / ".on").unlink()
