# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of files: a dump that is not sealed yet, its sidecar, and dumps by date."""

from __future__ import annotations

import os
import re
import time
from typing import Final

INCOMPLETE: Final = ".incomplete"
SIDECAR: Final = ".ldfs"
DATE: Final = "{date}"
_DATED: Final = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"
_FORM: Final = "%Y-%m-%dT%H-%M-%S"


def incomplete_name(name: str) -> str:
    """The name of a file until it is a finished dump."""
    return name + INCOMPLETE


def incomplete_sidecar(name: str) -> str:
    """The name of a sidecar file until its dump is finished: for DUMP.ldfs, the one at the usual
    place of DUMP.incomplete's sidecar."""
    if name.endswith(SIDECAR) and os.path.basename(name) != SIDECAR:
        return incomplete_name(name.removesuffix(SIDECAR)) + SIDECAR
    return incomplete_name(name)


def with_date(path: str, number: int = 0, seconds: float | None = None) -> str:
    """`path` with the local time for {date} in its last part. `number`: distinguishes several dumps
    of one second. `seconds`: since the epoch; None: now."""
    text, name = os.path.split(path)
    date = time.strftime(_FORM, time.localtime(seconds))
    return os.path.join(text, name.replace(DATE, f"{date}.{number}" if number else date))


def is_dated(path: str) -> bool:
    """Whether the last part of `path` has a {date}."""
    return DATE in os.path.basename(path)


def dated_like(name: str, pattern: str) -> tuple[str, int] | None:
    """Date and number in `name`, which sort by age; None: the name does not fit the pattern."""
    first, *rest = pattern.split(DATE)
    form = (
        re.escape(first)
        + f"({_DATED})"
        + "".join(
            re.escape(one) + (r"\1" if index < len(rest) - 1 else "")
            for index, one in enumerate(rest)
        )
    )
    match = re.fullmatch(form, name)
    if not match:
        return None
    date, _, number = match[1].partition(".")
    return date, int(number or 0)
