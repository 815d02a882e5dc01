# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of `fleet map` as a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from livedumpfs.errors import TargetError, UsageError, os_cause
from livedumpfs.fleet.mapping import Row


def columns_of(rows: Sequence[Row]) -> list[str]:
    """All names, in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def write_parquet(path: str, rows: Sequence[Row]) -> None:
    """UsageError: a column has values of two kinds. TargetError: it cannot be written. ImportError:
    pyarrow is missing."""
    import pyarrow
    from pyarrow import parquet

    columns = {name: [row.get(name) for row in rows] for name in columns_of(rows)}
    try:
        table = pyarrow.table(columns)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise UsageError(f"the rows are no table: {error}") from error
    new = f"{path}.new"
    try:
        parquet.write_table(table, new)
        os.rename(new, path)
    except OSError as error:
        code = error.errno or 0
        raise TargetError(f"cannot write {path}: {os_cause(code)}", errno=code) from error
