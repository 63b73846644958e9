#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Build with sanitizers beside the normal build and run the unit and the system tests with it. A report of any process fails its test.
# usage: sanitize.sh [address|thread] [PYTEST ARGUMENTS]
set -eu

top=$(cd "$(dirname "$0")/.." && pwd -P)
kind=address
case ${1:-} in address | thread) kind=$1; shift ;; esac
case $kind in address) list=address,undefined ;; thread) list=thread ;; esac
build=${TANDEM_SANITIZE_BUILD:-$top/build/sanitize-$kind}

[ -x "$top/configure" ] || "$top/bootstrap"
mkdir -p "$build"
cd "$build"
if ! { [ -e Makefile ] || "$top/configure" --prefix="$build/root" --enable-sanitizers="$list" CFLAGS='-O1 -g'; } >build.log 2>&1 ||
	! make -j "$(nproc)" install >>build.log 2>&1; then
	tail -n 40 build.log >&2
	exit 1
fi
TSAN_OPTIONS="suppressions=$top/tests/tsan.supp" make -j "$(nproc)" check >check.log 2>&1 || {
	grep -E '^(FAIL|ERROR)|runtime error|ERROR: |SUMMARY' check.log >&2
	echo "the unit tests fail with -fsanitize=$list; all of their output is in $build/check.log" >&2
	exit 1
}
cd "$top/tests"
export TANDEM_PREFIX="$build/root" TANDEM_SLOW="${TANDEM_SLOW:-4}"
exec ./system.sh "$@"
