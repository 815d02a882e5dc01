#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Each dump of the store of vm1, verified; how many there are.
set -eu
store=/var/lib/livedump/vm1 count=0
livedump list "$store"
for index in "$store"/*.caibx; do
	name=${index##*/}
	livedump verify "$store#${name%.caibx}"
	count=$((count + 1))
done
echo "$count verified"
