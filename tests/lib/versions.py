# SPDX-License-Identifier: BSD-2-Clause
"""Files whose bytes tell whether they are one whole version: who writes them through the mount, and who reads them on the standby."""
import hashlib
import os
import random
import threading


def version(number, size):
    """Bytes that tell whether they are complete."""
    body = random.Random(number).randbytes(size)
    return b"%012d %08d %s " % (number, size, hashlib.sha1(body).hexdigest().encode()) + body


def is_version(data):
    head, body = data[:63], data[63:]
    try:
        _, size, digest = head.split()
        return int(size) == len(body) and hashlib.sha1(body).hexdigest().encode() == digest
    except ValueError:
        return False


class Writer(threading.Thread):
    """Replaces files by new versions, as editors do, until stopped. Errors in tolerate are taken for those of a mount that was killed."""

    def __init__(self, root, files=6, first=0, tolerate=()):
        super().__init__(daemon=True)
        self.root, self.files, self.tolerate = root, files, tolerate
        self.number, self.halt, self.error = first, threading.Event(), None

    def run(self):
        rnd = random.Random(1)
        while not self.halt.is_set():
            self.number += 1
            path = self.root / f"f{self.number % self.files}"
            try:
                with open(f"{path}.new", "wb") as f:
                    f.write(version(self.number, rnd.choice((10, 3000, 70000, 400000))))
                os.rename(f"{path}.new", path)
            except OSError as e:
                if e.errno not in self.tolerate:
                    self.error = e
                    return

    def stop(self):
        """End; fail on an error."""
        self.halt.set()
        self.join()
        if self.error:
            raise AssertionError(f"replacing a file: {self.error!r}")


class Checker(threading.Thread):
    """Reads the standby all the time."""

    def __init__(self, root, files=6):
        super().__init__(daemon=True)
        self.root, self.files = root, files
        self.torn, self.read, self.halt = [], 0, threading.Event()

    def run(self):
        while not self.halt.is_set():
            for i in range(self.files):
                try:
                    data = (self.root / f"f{i}").read_bytes()
                except FileNotFoundError:
                    self.halt.wait(0.01)
                    continue
                self.read += 1
                if not is_version(data):
                    self.torn.append(f"f{i}: {len(data)} bytes, begins with {data[:63]!r}")

    def stop(self):
        """End; fail on a file that was torn."""
        self.halt.set()
        self.join()
        assert not self.torn, f"{len(self.torn)} of {self.read} reads:\n" + "\n".join(self.torn[:10])
