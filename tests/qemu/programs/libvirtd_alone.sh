#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
#   libvirtd_alone.sh FOLDER   a libvirtd with files of its own, which begins anew when it ends
#
# To be run in a mount namespace of its own. Its settings are those of the system, but for what needs
# systemd. Its socket is in FOLDER/sock, its process id in FOLDER/pid.
set -eu
folder=$1
mkdir -p "$folder/sock" "$folder/etc"
cp -r /etc/libvirt/. "$folder/etc"
rm -rf "$folder/etc/qemu/networks/autostart"
echo 'stdio_handler = "file"' >>"$folder/etc/qemu.conf"
mount --bind "$folder/etc" /etc/libvirt
for place in /run /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
	mount -t tmpfs -o mode=755 none "$place"
done
cat >"$folder/libvirtd.conf" <<END
unix_sock_dir = "$folder/sock"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "2:file:$folder/log"
END
trap 'kill $daemon; wait $daemon; exit 0' TERM
while :; do
	/usr/sbin/libvirtd -f "$folder/libvirtd.conf" -p "$folder/pid" &
	daemon=$!
	wait $daemon || true
	sleep 0.5
done
