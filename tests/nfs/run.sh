#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The mount over a real NFS: boots a Debian cloud kernel under qemu with our programs and runs guest.sh in it; see DESIGN.md.
# usage: run.sh [PYTEST ARGUMENTS]        programs of TANDEM_BUILD (default build/ at the top of the sources)
# Needs root and a Debian host whose apt sources name the mirror; no KVM. What is missing (qemu, debootstrap ...) is installed.
set -eu -o pipefail

top=$(cd "$(dirname "$0")/../.." && pwd -P)
build=${TANDEM_BUILD:-$top/build}
cache=${NFS_CACHE:-/var/cache/tandem-tests/nfs}
limit=${NFS_TIMEOUT:-1500} # seconds for everything in the machine
suite=bookworm
packages=linux-image-cloud-amd64,kmod,busybox-static,nfs-kernel-server,nfs-common,rpcbind,fuse3,inotify-tools,procps,psmisc,iproute2
packages+=,acl,attr,e2fsprogs,quota,python3,python3-pytest,libfuse3-3,zlib1g,libzstd1,libxxhash0,libbsd0,libssl3,libjansson4,libseccomp2,liburing2

say() { echo "nfs: $*" >&2; }
die() { say "$*"; exit 1; }

# Install a package unless its command is there.
need() {
	command -v "$2" >/dev/null && return
	say "installing $1"
	DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$1" </dev/null >&2 ||
		{ apt-get -q update </dev/null >&2 && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$1" </dev/null >&2; } ||
		die "could not install $1"
}

. "$top/tests/lib/mirror.sh"

# Make $cache: kernel, initrd, disk.img. The directory that debootstrap fills is removed again.
make_cache() {
	local from root=$cache/root
	from=$(mirror)
	[[ -n $from ]] || die "no Debian mirror in /etc/apt"
	say "making $cache from $from"
	rm -rf --one-file-system "$root"
	mkdir -p "$root"
	debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$from" >"$cache/debootstrap.log" 2>&1 ||
		{ tail -n 20 "$cache/debootstrap.log" >&2; die "debootstrap failed; all of it is in $cache/debootstrap.log"; }
	rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
	cp "$root"/boot/vmlinuz-* "$cache/kernel"
	make_initrd "$root"
	rm -rf "$root"/boot/*
	rm -f "$cache/disk.img"
	mke2fs -q -t ext4 -O ^has_journal -N 200000 -d "$root" "$cache/disk.img" 2G
	rm -rf --one-file-system "$root"
	printf '%s\n' "$packages" >"$cache/complete"
}

# The smallest initramfs that finds the disk: busybox and the modules of virtio_blk and ext4.
make_initrd() {
	local root=$1 kernel m dir
	kernel=$(ls "$root/lib/modules")
	dir=$(mktemp -d)
	mkdir -p "$dir/bin" "$dir/modules" "$dir/dev" "$dir/root"
	cp "$root/bin/busybox" "$dir/bin/busybox"
	{
		echo '#!/bin/busybox sh'
		echo '/bin/busybox mount -t devtmpfs dev /dev'
		for m in virtio_pci virtio_blk ext4 virtio_rng; do
			chroot "$root" modprobe -S "$kernel" --show-depends "$m"
		done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r m; do
			cp "$root$m" "$dir/modules/"
			echo "/bin/busybox insmod /modules/${m##*/}"
		done
		cat <<-'END'
		until /bin/busybox test -b /dev/vda -a -b /dev/vdb; do /bin/busybox usleep 10000; done
		/bin/busybox mount -t ext4 /dev/vda /root
		/bin/busybox mkdir -p /root/opt/tandem
		/bin/busybox tar xf /dev/vdb -C /root/opt/tandem
		/bin/busybox mount --move /dev /root/dev
		exec /bin/busybox switch_root /root /opt/tandem/tests/nfs/guest.sh
		END
	} >"$dir/init"
	chmod 755 "$dir/init"
	(cd "$dir" && find . | cpio -o -H newc --quiet | gzip -1) >"$cache/initrd"
	rm -rf "$dir"
}

# The second disk is a tar of the programs, the tests and the arguments.
make_payload() {
	local p
	mkdir -p "$work/payload/sbin"
	for p in tandemfs tandemd tandem-replicator tandemctl; do
		[[ -x $build/$p ]] || die "$build/$p is missing: build it, or set TANDEM_BUILD"
		cp "$build/$p" "$work/payload/sbin/"
	done
	mkdir "$work/payload/tests"
	cp -r "$top"/tests/{lib,nfs,system,system.sh,pytest.ini} "$work/payload/tests/"
	printf '%s\n' "$@" >"$work/payload/arguments"
	printf "%s\n" "export TANDEM_SLOW=${TANDEM_SLOW:-4}" "NFS_VERSIONS='${NFS_VERSIONS-4.2 4.0 3}'" >"$work/payload/settings"
	tar cf "$work/payload.tar" -C "$work/payload" .
}

((EUID == 0)) || die "must be root (debootstrap, chroot)"
need qemu-system-x86 qemu-system-x86_64
need cpio cpio
need e2fsprogs mke2fs
need debootstrap debootstrap
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[[ -e $cache/complete && $(<"$cache/complete") == "$packages" ]] || make_cache
flock -u 9
exec 9>&-

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make_payload "$@"
began=$SECONDS
status=0
# writes to the first disk go to a temporary file, so that every run begins with the same
timeout --kill-after=10 "$limit" qemu-system-x86_64 -accel tcg,thread=multi,tb-size=256 -cpu max -smp 1 -m 1536 -no-reboot -nodefaults -display none \
	-kernel "$cache/kernel" -initrd "$cache/initrd" -append "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable" \
	-drive "file=$cache/disk.img,format=raw,if=virtio,snapshot=on,cache=unsafe" \
	-drive "file=$work/payload.tar,format=raw,if=virtio,readonly=on" -serial stdio </dev/null 2>&1 |
	sed -u 's/\r$//' | tee "$work/console" || status=$?
((status != 124 && status != 137)) || say "no end within $limit s"
result=$(sed -n 's/^guest: exit \([0-9]*\)$/\1/p' "$work/console" | tail -n 1)
say "$((SECONDS - began)) s in the machine"
[[ -n $result ]] || die "the machine ended without a result; its console is above"
grep -E '^[0-9]+ passed, [0-9]+ failed$' "$work/console" | tail -n 1
exit "$result"
