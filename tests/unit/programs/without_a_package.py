# SPDX-License-Identifier: GPL-2.0-or-later
"""A command line where a package is missing."""

from __future__ import annotations

import importlib.abc
import runpy
import sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == missing or name.startswith(missing + "."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


missing, *sys.argv[1:] = sys.argv[1:]
sys.meta_path.insert(0, Missing())
runpy.run_module("livedumpfs.cli", run_name="__main__", alter_sys=True)
