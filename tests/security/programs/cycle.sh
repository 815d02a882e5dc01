#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# In the folder $1, by the command $2: a host, a dump of each format, a mount of one.
set -eu
cd "$1"; livedump=$2; host=
finish() { [ -z "$host" ] || kill "$host" 2>/dev/null || true; wait; }
trap finish EXIT
wait_for() { for _ in $(seq 300); do [ -e "$1" ] && return; kill -0 "$2" || break; sleep 0.1; done
	cat log; echo "no $1"; exit 4; }
mkdir mount finished
"$livedump" host --ram 16M --mount mount >log 2>&1 & host=$!
wait_for mount/livedump "$host"
for format in elf raw kdump; do
	"$livedump" dump "d.$format" --format $format 2>&1
	"$livedump" verify "d.$format" >/dev/null 2>&1
done
"$livedump" mount d.elf finished >/dev/null 2>&1 & seen=$!
wait_for finished/snapshot/vmcore "$seen"
cmp finished/snapshot/mem.raw d.raw || [ $? = 1 ] # of another instant
kill -INT $seen; wait $seen
"$livedump" start --no-target 2>&1; "$livedump" release 2>&1
kill -INT "$host"; wait "$host"; host=
rmdir mount finished
rmdir "/tmp/livedumpfs-$(id -u)" 2>/dev/null || true # its entry was there
echo all done as $(id -u)
