#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The init of a Debian kernel that runs programs of tests/native.
/bin/busybox --install -s /bin
mkdir -p /proc /dev /tmp
mount -t proc none /proc
mount -t devtmpfs none /dev
echo "release $(uname -r) userfaultfd $(ls /dev/userfaultfd)"
for arguments in "1 0" "1 1"; do
	echo "kernel_writes $arguments:" $(kernel_writes $arguments)
done
echo done
poweroff -f
