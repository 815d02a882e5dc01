# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of /proc as text."""

from __future__ import annotations

from pathlib import Path


def proc_text(path: str | Path) -> str:
    """All of it, read at once. Names of files, mount points and processes may be of any bytes but
    those that the kernel escapes: what is no UTF-8 becomes surrogates, and only a newline ends a
    line, so split at "\\n" and " ". OSError: it cannot be read."""
    return Path(path).read_bytes().decode("utf-8", "surrogateescape")


def proc_fields(path: str | Path) -> dict[str, str]:
    """The fields of a status file ("Name:\\tvalue"), by name. OSError: it cannot be read."""
    lines = (line.partition(":\t") for line in proc_lines(path))
    return {name: value for name, _, value in lines}


def proc_lines(path: str | Path) -> list[str]:
    """Its lines, without their ends; none of an empty file. OSError: it cannot be read."""
    return proc_text(path).split("\n")[:-1]
