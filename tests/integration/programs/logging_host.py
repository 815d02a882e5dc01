# SPDX-License-Identifier: GPL-2.0-or-later
"""A livedump command whose journal is at another place: `SOCKET WORD...`. As a service of systemd,
where the first word is "service": standard error is then the journal's."""

import os
import sys

from livedumpfs.cli.main import main
from livedumpfs.mount import journal

place, kind, *words = sys.argv[1:]
journal.SOCKET = place
if kind == "service":
    found = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
sys.exit(main(words))
