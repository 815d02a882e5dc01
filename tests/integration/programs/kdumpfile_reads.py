# SPDX-License-Identifier: GPL-2.0-or-later
"""What libkdumpfile reads of a dump."""

from __future__ import annotations

import hashlib
import json
import sys

from kdumpfile import KDUMP_MACHPHYSADDR, kdumpfile
from kdumpfile.exceptions import NoDataException

dump = kdumpfile(sys.argv[1])
memory = b"".join(dump.read(KDUMP_MACHPHYSADDR, *one) for one in json.loads(sys.argv[2]))
print(dump.attr["file.format"], dump.attr.get("arch.name", "-"), hashlib.sha256(memory).hexdigest())
try:
    print(dump.read(KDUMP_MACHPHYSADDR, int(sys.argv[3]), 8))
except NoDataException:
    print("no data")
