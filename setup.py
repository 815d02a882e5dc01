# SPDX-License-Identifier: GPL-2.0-or-later
from setuptools import setup

setup(cffi_modules=["native/build_native.py:ffibuilder"])
