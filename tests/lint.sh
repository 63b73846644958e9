#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# clang-tidy (checks: .clang-tidy) and cppcheck over everything that is installed. Prints what they find and fails if that is anything.
# What is not true is silenced where it stands, with the reason.
# usage: make lint, or lint.sh [FILE...] -- COMPILER FLAGS    in a configured build directory
set -u
top=$(cd "$(dirname "$0")/.." && pwd -P)
files=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	files="$files $1"
	shift
done
[ $# -gt 0 ] && shift
# paths of ours have no blanks
# shellcheck disable=SC2086
[ -n "$files" ] || files=$(cd "$top" && ls proto/*.c fs/*.c replicator/*/*.c)
build=$PWD
cd "$top" || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

# What it left out it counts on standard error, of use only when a file does not compile.
# shellcheck disable=SC2086
printf '%s\n' $files | xargs -P "$(nproc)" -I{} sh -c 'out=$0/$(echo "$1" | tr / -)
	shift
	clang-tidy --quiet "$@" >"$out" 2>"$out.err" || cat "$out.err" >>"$out"
	rm -f "$out.err"' "$work" {} {} -- "$@" "-I$build"
cat "$work"/* >"$work/all"
[ -s "$work/all" ] && status=1
cat "$work/all"

# Of the system's headers it reads those whose macros are part of our code; all of them take minutes. Each directory stream is used by one
# thread, and names are looked up before there are threads.
mkdir -p "$work/include/sys"
for h in sys/queue.h sys/tree.h; do
	ln -s "/usr/include/bsd/$h" "$work/include/$h"
done
ln -s /usr/include/jansson.h "$work/include/"
# shellcheck disable=SC2086
cppcheck -j "$(nproc)" --quiet --error-exitcode=1 --enable=warning,performance,portability --inline-suppr --std=c11 --library=posix,gnu \
	--suppress=missingIncludeSystem --suppress='*:*/include/*' --suppress=readdirCalled --suppress=getpwuidCalled \
	--suppress=getpwnamCalled --suppress=getgrnamCalled -DHAVE_CONFIG_H -I. -I"$build" -I"$work/include" $files || status=1
exit "$status"
