# SPDX-License-Identifier: GPL-2.0-or-later
"""Python packages that only arrays need, loaded at their first use."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from livedumpfs.errors import MissingPackage


def extra(module: str, package: str = "") -> Any:
    """The module. MissingPackage: it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = package or module.partition(".")[0]
        raise MissingPackage(
            f"{sys.executable} does not have the Python package {name}",
            hint="pip install 'livedumpfs[zarr]'",
        ) from error
