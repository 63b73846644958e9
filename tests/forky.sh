#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Build and try the programs where users of newer systems are: in a Debian forky root (libfuse 3.18) made with debootstrap.
# usage: forky.sh [PYTEST ARGUMENTS]      default: -m smoke
# The root is kept in $FORKY_ROOT (default /var/cache/tandem-tests/forky) and used again; needs root, debootstrap and a Debian
# host whose apt sources name the mirror.
set -eu -o pipefail

top=$(cd "$(dirname "$0")/.." && pwd -P)
root=${FORKY_ROOT:-/var/cache/tandem-tests/forky}
suite=forky
packages=build-essential,autoconf,automake,pkg-config,libfuse3-dev,fuse3,zlib1g-dev,libzstd-dev,libxxhash-dev,libbsd-dev,libssl-dev
packages+=,libjansson-dev,libseccomp-dev,check,python3,python3-pytest,acl,attr,rsync

say() { echo "forky: $*" >&2; }
die() { say "$*"; exit 1; }

. "$top/tests/lib/mirror.sh"

((EUID == 0)) || die "must be root (debootstrap, chroot)"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
[[ -c /dev/fuse ]] || die "/dev/fuse is missing"

if [[ ! -e $root/.complete ]]; then
	from=$(mirror)
	[[ -n $from ]] || die "no Debian mirror in /etc/apt"
	script=/usr/share/debootstrap/scripts/$suite
	[[ -e $script ]] || script=/usr/share/debootstrap/scripts/sid
	say "making $root from $from"
	rm -rf --one-file-system "$root"
	mkdir -p "$root"
	debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$from" "$script" >"$root.log" 2>&1 ||
		{ tail -n 20 "$root.log" >&2; die "debootstrap failed; all of it is in $root.log"; }
	touch "$root/.complete"
fi

(($#)) || set -- -m smoke
# A mount namespace of our own: nothing that is mounted here is left over.
export top root
exec unshare --mount --propagation private bash -eu -o pipefail -c '
	mount --bind "$root" "$root"
	mount -t proc proc "$root/proc"
	mount -t sysfs sysfs "$root/sys"
	mount --rbind /dev "$root/dev"
	mkdir -p "$root/src" "$root/build"
	mount -t tmpfs -o mode=755 tmpfs "$root/src"
	mount -t tmpfs -o mode=755 tmpfs "$root/build"
	tar cf - -C "$top" --exclude=./build --exclude=./.git --exclude="*.o" --exclude=./config.status --exclude=./Makefile . | tar xf - -C "$root/src"
	exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TANDEM_SLOW="${TANDEM_SLOW:-2}" \
		TANDEM_SEEDS="${TANDEM_SEEDS:-2}" /bin/bash /src/tests/forky-inside.sh "$@"
' forky "$@"
