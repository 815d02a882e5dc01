# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m livedumpfs.cli`, which scripts/livedump runs."""

from __future__ import annotations

import sys

from livedumpfs.cli.main import main

sys.exit(main())
