#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A user can run the Python that tests run on, wherever it lies, and may mount: $1 is the first
# folder on the way that others may not enter, $2 the rest of the way, $3 a folder for a device.
set -eu
open() { # $1: a folder that others may not enter; $2: what of it they need
	kept=$(mktemp -d); mount --bind "$1" "$kept"; mount -t tmpfs -o mode=755 none "$1"
	mkdir -p "$1/$2"; mount --bind "$kept/$2" "$1/$2"
}
[ -z "$1" ] || open "$1" "$2"
mknod -m 666 "$3/fuse" c 10 229; mount --bind "$3/fuse" /dev/fuse
shift 3
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all "$@"
