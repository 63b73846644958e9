#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Run by forky.sh inside the root: build /src into /build/root, then run the system tests given as arguments.
set -eu -o pipefail

echo "forky: libfuse $(pkg-config --modversion fuse3)" >&2
cd /src
if ! { ./bootstrap && mkdir -p /build/tree && cd /build/tree && /src/configure --prefix=/build/root &&
	make -j "$(nproc)" install; } >/build/log 2>&1; then
	tail -n 40 /build/log >&2
	echo "forky: the build failed" >&2
	exit 1
fi
cd /src/tests
export TANDEM_PREFIX=/build/root
exec ./system.sh "$@"
