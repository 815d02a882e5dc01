# SPDX-License-Identifier: GPL-2.0-or-later
import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent / "native"))
from build_native import shim

setup(cffi_modules=["native/build_native.py:ffibuilder"], ext_modules=[shim()])
