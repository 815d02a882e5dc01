# SPDX-License-Identifier: GPL-2.0-or-later
"""The place of the header for C programs."""

from __future__ import annotations

from pathlib import Path

HEADER = "livedump_ioctl.h"


def get_include() -> str:
    """The folder of livedump_ioctl.h, for the compiler's -I: in the installed package, else native/
    of a source tree. FileNotFoundError: it is in neither."""
    package = Path(__file__).resolve().parent
    for folder in (package / "include", package.parent / "native"):
        if (folder / HEADER).is_file():
            return str(folder)
    raise FileNotFoundError(f"{HEADER} is not in {package / 'include'}: install livedumpfs again")
