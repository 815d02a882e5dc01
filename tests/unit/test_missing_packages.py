# SPDX-License-Identifier: GPL-2.0-or-later
"""A Python package that is not there, or not for this user: one sentence, whichever command
needs it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from livedumpfs.cli import outcome, progress
from livedumpfs.cli.bar import Bar
from tests.fixtures.program_files import program_file

TOP = Path(__file__).resolve().parents[2]
NEEDS = {
    "msgspec": ("msgspec", "info dump"),
    "numpy": ("numpy", "info dump"),
    "xxhash": ("xxhash", "verify dump"),
    "jinja2": ("Jinja2", "report dump -o page"),
    "fuse": ("fusepy", "mount dump dir"),
    "cachetools": ("cachetools", "host --ram 4M"),
    "shtab": ("shtab", "completion bash"),
    "zstandard": ("zstandard", "list store"),
    "_cffi_backend": ("cffi", "host --ram 4M"),
    "elftools": ("pyelftools", "host --ram 4M"),
    "unicorn": ("unicorn", "host --ram 4M"),
    "qemu": ("qemu.qmp", "qemu -- qemu-system-x86_64 -m 64"),
}
"""Module: its package, and a command that needs it."""


def run(missing: str, *words: str, cwd: Path) -> str:
    """The one sentence."""
    done = subprocess.run(
        [sys.executable, "-P", program_file(__file__, "without_a_package.py"), missing, *words],
        cwd=cwd, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(TOP), "XDG_RUNTIME_DIR": str(cwd)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    return done.stderr.removeprefix("livedump: error: ").removesuffix("\n")


@pytest.mark.parametrize("module", NEEDS)
def test_one_that_is_missing(module: str, tmp_path: Path, write_dump: Callable[..., Any]) -> None:
    package, line = NEEDS[module]
    write_dump(tmp_path / "dump", bytes(8192))
    (tmp_path / "dir").mkdir()
    said = run(module, *line.split(), cwd=tmp_path)
    assert said == (
        f"{sys.executable} does not have the Python package {package} "
        "(`make setup` installs it in a source tree, else pip)"
    )


def test_the_core_that_is_not_built(tmp_path: Path) -> None:
    said = run("livedumpfs._native", "host", "--ram", "4M", cwd=tmp_path)
    assert said == "the C core of livedumpfs is not built, or not for this Python (run `make`)"


def test_one_that_is_an_extra(tmp_path: Path) -> None:
    said = run("libvirt", "attach", "--libvirt", "guest", cwd=tmp_path)
    assert said == (
        f"{sys.executable} does not have the Python package libvirt-python (pip install "
        "'livedumpfs[libvirt]'; it is built with gcc, libvirt-dev, pkg-config)"
    )


def test_the_extra_of_fleets(tmp_path: Path) -> None:
    for package in ("distributed", "dask"):
        said = run(package, "fleet", "members", "--scheduler", "x:1", "--insecure", cwd=tmp_path)
        assert said == (
            f"{sys.executable} does not have the Python package {package} "
            "(pip install 'livedumpfs[fleet]')"
        )


def required_packages() -> list[Requirement]:
    text = (TOP / "setup.cfg").read_text().split("install_requires =")[1].split("\n[")[0]
    return [Requirement(line) for line in text.splitlines() if line.strip()]


def test_each_package_is_pinned_within_its_range() -> None:
    lines = (TOP / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for package in required_packages():
        assert package.specifier.contains(pins[package.name]), package
        assert package.specifier, f"any {package} would do"


def test_all_that_setup_names_is_tried() -> None:
    required = {package.name for package in required_packages()}
    in_the_mount = {"prometheus_client"}  # loaded when `metrics` is looked at, by no command
    on_a_terminal = {"rich"}  # see test_a_terminal_without_rich
    tried = {package for package, _ in NEEDS.values()} | in_the_mount | on_a_terminal
    assert required == tried, json.dumps(sorted(required))


def test_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for in the middle of a dump, which goes on."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.display("dump") as shown:
        assert isinstance(shown, Bar)
    monkeypatch.setitem(sys.modules, "livedumpfs.cli.bar", None)  # its import fails
    with progress.display("dump") as shown:
        shown.update(1, 2, 0)
    assert stream.getvalue().endswith("dump  50%, 1 B of 2 B\n")


def test_commands_load_no_rich() -> None:
    """It takes more time than all else that a short command does."""
    code = "import sys, livedumpfs.cli.main; print('rich' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert said.stdout == "False\n", said


def test_a_folder_that_this_user_may_not_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes what it may not read for what is not there."""
    real = os.stat

    def stat(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        if str(path).startswith("/root/venv"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(sys, "path", [*sys.path, "/root/venv/site-packages"])
    said = outcome.sentence(ModuleNotFoundError("x", name="rich.console"))
    assert said.endswith("package rich (this user may not enter /root/venv/site-packages)")


def test_a_library_that_a_package_needs() -> None:
    said = outcome.sentence(ImportError("libzstd.so.1: cannot open\nshared object", name="x"))
    assert said == "a Python package cannot be loaded: libzstd.so.1: cannot open shared object"
