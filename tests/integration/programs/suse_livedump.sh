#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The script of SUSE's livedump: it knows the files of control/ alone.
DIR=$1; DEV=$2
write_and_check() { echo -n "$1: "; echo $2 > $3; if [ $? -ne 0 ]; then exit 1; fi; echo "OK"; }
CUR_STATE=`head -n 1 $DIR/state`
if [ $CUR_STATE -ne 0 ] && [ $CUR_STATE -ne 5 ]; then write_and_check "reset" 5 $DIR/state; fi
write_and_check "device" $DEV $DIR/output
for step in init:1 start:2 sweep:3 finish:4 uninit:5; do
    write_and_check ${step%:*} ${step#*:} $DIR/state
done
