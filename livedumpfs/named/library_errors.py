# SPDX-License-Identifier: GPL-2.0-or-later
"""What libraries say of a store that fails, in one sentence. They say pages, in which the name of a
key may be."""

from __future__ import annotations

import errno
import re
from typing import Final

from livedumpfs.errors import TargetError, os_cause

_LONGEST: Final = 200
_OF_S3: Final = (
    re.compile(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)</Message>"),
    re.compile(r'code: "([^"]*)", message: "([^"]*)"'),
)
"""The server's answer, as obstore and icechunk show it."""
_CAUSE: Final = re.compile(r"^\s*[`|]->(.*)$", re.MULTILINE)
"""One of the causes in an error of icechunk, which shows the last one last."""


def cannot_write(path: str, error: Exception) -> TargetError:
    """What to raise."""
    return _failed("write", path, error)


def cannot_reach(path: str, error: Exception) -> TargetError:
    """What to raise, where nothing was to be written."""
    return _failed("read", path, error)


def _failed(doing: str, path: str, error: Exception) -> TargetError:
    code = error.errno if isinstance(error, OSError) else 0
    cause = os_cause(code) if code else brief(str(error)) or type(error).__name__
    return TargetError(f"cannot {doing} {path}: {cause}", errno=code or errno.EIO)


def brief(said: str) -> str:
    """What matters of it."""
    for form in _OF_S3:
        found = form.search(said)
        if found:
            return f"{found[1]}: {found[2]}" if found[2] else found[1]
    causes = _CAUSE.findall(said)
    lines = [one.strip() for one in said.splitlines() if one.strip()]
    line = causes[-1].strip() if causes else lines[0].removeprefix("x ") if lines else ""
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "..."
