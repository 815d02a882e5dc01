#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# In the folder $1, by the command $2: a QEMU without a guest, a dump of it packed in each way.
set -eu
cd "$1"; livedump=$2; host=
finish() { [ -z "$host" ] || kill "$host" 2>/dev/null || true; wait; }
trap finish EXIT
mkdir mount
"$livedump" qemu --mount mount -- qemu-system-x86_64 -accel tcg -m 32 -display none \
	>log 2>&1 </dev/null & host=$!
for _ in $(seq 600); do [ -e mount/livedump ] && break; kill -0 "$host" || break; sleep 0.1; done
[ -e mount/livedump ] || { cat log; echo "no mount"; exit 4; }
for codec in zlib zstd lzo snappy; do
	"$livedump" dump "d.$codec" --format kdump --compress $codec 2>&1
	"$livedump" verify "d.$codec" >/dev/null
done
kill -INT "$host"; wait "$host" || true; host=
rmdir mount
echo verified
