#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The programs of this build are position-independent, their tables read-only after the start, their stack not executable and guarded, and
# their calls of libc checked. Run by `make check` in the build directory; builds with sanitizers or without optimisation are left out.
set -u
command -v readelf >/dev/null || exit 77
grep -Eq '^SAN_FLAGS = *[^ ]' Makefile && exit 77
grep -Eq '^HARDEN_CFLAGS = .*_FORTIFY_SOURCE' Makefile || exit 77
bad=0

wrong() {
	echo "$1: $2"
	bad=1
}

for program in tandemfs tandem-replicator tandemd tandemctl; do
	all=$(readelf --wide --file-header --program-headers --dynamic --symbols "$program")
	has() { printf '%s\n' "$all" | grep -Eq "$1"; }
	has 'Type: +DYN' || wrong "$program" "is not position-independent"
	has '^ +GNU_RELRO' || wrong "$program" "has no read-only relocations"
	has 'FLAGS.*(BIND_)?NOW' || wrong "$program" "binds symbols late, so that their table stays writable"
	has '^ +GNU_STACK .* RW +0x' || wrong "$program" "has an executable stack"
	has '^ +LOAD .* RWE ' && wrong "$program" "has memory that is writable and executable"
	has 'UND __stack_chk_fail' || wrong "$program" "has no stack protector"
	has 'UND __[a-z]+_chk' || wrong "$program" "does not check its calls of libc"
	has 'R(UN)?PATH' && wrong "$program" "looks for libraries in a path of its own"
done
grep -q '^HARDEN_CFLAGS = .*-D_FORTIFY_SOURCE=3' Makefile || wrong Makefile "_FORTIFY_SOURCE is not 3"
exit $bad
