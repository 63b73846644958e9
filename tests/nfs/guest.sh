#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The first process of the machine that run.sh boots: an NFS server that exports to itself, mounts of it, the tests. The result
# goes to the console as "N passed, N failed" and "guest: exit N".
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
here=/opt/tandem
export TANDEM_BUILD=$here/sbin TANDEM_TMP=/var/tmp  PYTHONDONTWRITEBYTECODE=1

end() {
	trap - EXIT
	echo "guest: exit $1"
	sync
	busybox poweroff -f
	sleep 60
}
trap 'end 1' EXIT
say() { echo "guest: $*, $(cut -d ' ' -f 1 /proc/uptime) s"; }
# Print the number that stands before a word in a line, or 0.
count() { grep -oE "[0-9]+ $1" <<<"$2" | awk '{ n = $1 } END { print n + 0 }'; }
need() { "$@" || { echo "guest: failed: $*"; end 1; }; }

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts pts /dev/pts
ln -sf /proc/self/fd /dev/fd
ip link set lo up
hostname nfs
say "booted, kernel $(uname -r)"

need modprobe -a fuse nfsd nfs nfsv3 nfsv4
# the grace periods after a server's start are as short as can be
echo 10 >/proc/sys/fs/nfs/nlm_grace_period
mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /run/rpc_pipefs /srv/nfs /var/lib/nfs/nfsdcld
mount -t rpc_pipefs rpc /run/rpc_pipefs
echo "/srv/nfs 127.0.0.1(rw,no_root_squash,no_subtree_check,sync,insecure)" >/etc/exports
need rpcbind -w
need rpc.statd --no-notify
command -v nfsdcld >/dev/null && nfsdcld
need exportfs -ra
need rpc.mountd
need "$here/tests/nfs/server.sh" start
(echo Y >/proc/fs/nfsd/v4_end_grace) 2>/dev/null && say "grace ended"
say "NFS serves"

# the system tests that are run here, too, with 4.2 and 3: those of which NFS could make something else
core=(system/test_fs.py::test_{inode_numbers_are_stable,removed_file_that_is_still_open,replaced_file_that_is_still_open,permissions_are_checked}
	system/test_fs.py::test_{new_files_belong_to_their_maker,sticky_directory,shared_mapping_is_coherent,o_append_of_two_writers,posix_locks}
	system/test_mirror.py::test_{rename_over,rename_before_it_was_sent,delete,symlinks,hard_links,hard_link_survives_its_first_name}
	system/test_mirror.py::test_{overwrite,append,sparse_file,mmap_store_after_close,open_file_arrives_with_fsync,unlinked_while_open}
	system/test_restart.py::test_{everything_stopped_and_started,kill_mount_with_an_open_file})

# say what hangs, if anything does
echo 60 >/proc/sys/kernel/hung_task_timeout_secs
(while sleep 30; do dmesg | grep -q 'blocked for more than' && echo w >/proc/sysrq-trigger && dmesg | tail -n 400 && ps axH -o pid,ppid,stat,wchan:30,args && break; done) &

passed=0 failed=0
. $here/settings
mapfile -t arguments <$here/arguments
[[ -n ${arguments[0]:-} ]] || arguments=()
mkdir /mnt/watch
for version in $NFS_VERSIONS; do
	export NFS_VERSION=$version TANDEM_SOURCES=/mnt/v$version
	mkdir "/mnt/v$version"
	need mount -t nfs -o "vers=$version,nosharecache" 127.0.0.1:/srv/nfs "/mnt/v$version"
	need mount -t nfs -o "vers=$version,nosharecache" 127.0.0.1:/srv/nfs /mnt/watch
	say "NFS $version"
	cd $here/tests
	tests=("${arguments[@]}")
	((${#tests[@]} > 0)) || tests=(nfs/test_nfs.py)
	((${#arguments[@]} == 0)) && [[ $version != 4.0 ]] && tests+=("${core[@]}")
	./system.sh -p no:cacheprovider -q -ra --tb=short --durations=5 "${tests[@]}" 2>&1 | tee /tmp/log
	bad=${PIPESTATUS[0]}
	line=$(tail -n 3 /tmp/log | grep -E '(passed|failed|error).* in [0-9.]+')
	passed=$((passed + $(count passed "$line"))) failed=$((failed + $(count failed "$line") + $(count error "$line")))
	cd /
	umount /mnt/watch "/mnt/v$version"
	((bad != 0 && failed == 0)) && failed=1
done
# this kernel has quotas, as others have not: the test is skipped there
if ((${#arguments[@]} == 0)); then
	need modprobe -a loop quota_v2
	say "quotas"
	unset TANDEM_SOURCES
	cd $here/tests
	python3 -m pytest -p no:cacheprovider -q -ra --tb=short system/test_disk.py::test_standby_quota 2>&1 | tee /tmp/log
	if grep -q '^1 passed' /tmp/log; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	cd /
fi
say "tests done"
echo "$passed passed, $failed failed"
end $((failed > 0))
