# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of the package that setup.cfg cannot describe: the C core, the built-in guest, and the
header for C programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TOP = Path(__file__).resolve().parent
GUEST = Path("livedumpfs/guest/ledger.elf")
HEADER = Path("native/livedump_ioctl.h")
INCLUDE = Path("livedumpfs/include")

sys.path.insert(0, str(TOP / "native"))
from build_native import shim  # noqa: E402


def build_guest() -> str:
    """Build the x86-64 program that `livedump host` runs, and where there is a compiler for it
    that for riscv64. Where there is none for x86-64, an existing one is used, and the reason is
    returned. SystemExit: there is neither."""
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", "-s", "-C", "guest"]
    try:
        done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] if done.returncode else []
    except OSError as error:
        said = [str(error)]
    if not said and (TOP / GUEST).exists():
        return ""
    why = said[0] if said else f"{command[0]} made none"
    if not (TOP / GUEST).exists():
        raise SystemExit(
            f"error: cannot build the built-in guest {GUEST}: {why} "
            "(it needs make and a gcc for x86-64: GUEST_CC names a cross compiler)"
        )
    return f"{GUEST} is taken as it is: {why}"


class BuildWithGuest(build_py):
    """Python files, and the files that are compiled or copied beside them."""

    def run(self) -> None:
        """An editable install (pip install -e) does not copy the header: get_include() finds it in
        native/."""
        if said := build_guest():
            self.warn(said)
        super().run()
        if self.editable_mode:
            return
        guests = [path.relative_to(TOP) for path in (TOP / GUEST.parent).glob("*.elf")]
        for source, folder in (*((guest, GUEST.parent) for guest in guests), (HEADER, INCLUDE)):
            place = Path(self.build_lib) / folder
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TOP / source, place / source.name)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All outputs, the header included."""
        header = Path(self.build_lib) / INCLUDE / HEADER.name
        return [*super().get_outputs(include_bytecode), str(header)]


# One wheel for each later Python. Those without a GIL have no stable ABI before 3.15.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")
extension = shim()
extension.py_limited_api = STABLE

setup(
    cffi_modules=["native/build_native.py:ffibuilder"],
    ext_modules=[extension],
    cmdclass={"build_py": BuildWithGuest},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
