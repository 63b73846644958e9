#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# In the machine: start, stop or restart the NFS server.
set -eu
start() { rpc.nfsd --grace-time 10 --lease-time 10 8; }
stop() { rpc.nfsd 0; }
case $1 in
start) start ;;
stop) stop ;;
restart)
	stop
	start
	;;
esac
