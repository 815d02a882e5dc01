# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel of `make wheels` on each Python that is there (`make test-wheels`): installed as by any
user, with all that it needs from PyPI and no compiler.

The short form, with a wheel that is made in passing, is in test_packaging.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fixtures.cycles import USER, cycle, run_in, without_rights
from tests.fixtures.patience import FOLDER
from tests.fixtures.program_files import program_file

TOP = Path(__file__).resolve().parents[2]
WHEELS = os.environ.get("LIVEDUMP_WHEELS")
TOOLS = TOP / os.environ.get("LIVEDUMP_WHEEL_TOOLS", "build/wheels/tools/bin")
PYTHONS = ["this", *os.environ.get("LIVEDUMP_PYTHONS", "").split()]
EXTRAS = "encryption,fleet,remote,zarr"
"""Those that need no compiler."""
INSTALL_S = 900
pytestmark = [
    pytest.mark.skipif(not WHEELS, reason="make test-wheels makes the wheel and gets the Pythons"),
    pytest.mark.together,
]


@dataclass
class Installed:
    """A virtual environment with the wheel in it."""

    base: Path
    """The Python that it was made of."""
    venv: Path

    @property
    def python(self) -> Path:
        return self.venv / "bin/python"

    @property
    def livedump(self) -> Path:
        return self.venv / "bin/livedump"


def base_python(name: str) -> Path:
    """`name`: this one, or VERSION-SUITE of build/pythons."""
    if name == "this":
        return Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    found = TOP / "build/pythons" / name / "root/usr/bin" / f"python{name.partition('-')[0]}"
    assert found.exists(), f"no {found}; make test-wheels gets it"
    return found


def wheel() -> Path:
    (found,) = (TOP / str(WHEELS)).glob("livedumpfs-*.whl")
    return found


def pip(venv: Path, *words: str) -> None:
    """Of the tools: it needs none in the environment."""
    done = subprocess.run(
        [TOOLS / "python", "-m", "pip", "--python", venv / "bin/python", *words],
        cwd=venv, capture_output=True, text=True, timeout=INSTALL_S, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", params=PYTHONS)
def installed(request: pytest.FixtureRequest) -> Iterator[Installed]:
    base = base_python(request.param)
    folder = Path(tempfile.mkdtemp(prefix="livedump-wheel-"))
    folder.chmod(0o755)
    try:
        made = Installed(base, folder / "venv")
        subprocess.run([base, "-m", "venv", "--without-pip", made.venv], check=True)
        # fusepy has no wheel; it is Python alone.
        binary = ("--only-binary", ":all:", "--no-binary", "fusepy")
        pip(made.venv, "install", "-q", *binary, f"{wheel()}[{EXTRAS}]")
        yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def folder(installed: Installed) -> Iterator[Path]:
    place = installed.venv.parent / "work"
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture(autouse=True)
def of_the_wheel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of this tree, but with the patience of tests."""
    monkeypatch.setenv("PYTHONPATH", FOLDER)


def test_all_that_it_asks_for_fits_together(installed: Installed) -> None:
    pip(installed.venv, "check")


def test_it_is_one_wheel_for_all_and_has_the_codecs_inside() -> None:
    name = wheel().name
    assert "-cp311-abi3-manylinux_2_34_" in name and name.count(".whl") == 1


def test_no_codec_of_the_wheel_is_seen_by_another_library(installed: Installed) -> None:
    """The shim is preloaded into QEMU, which may have zlib and zstd of another version."""
    for name in ("_native", "_shim"):
        (library,) = installed.venv.glob(f"lib/python3.*/site-packages/livedumpfs/{name}.abi3.so")
        said = subprocess.run(
            ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
        ).stdout
        names = [line.split()[-1] for line in said.splitlines()]
        assert not [one for one in names if one.startswith(("deflate", "ZSTD", "lzo", "snappy"))]
        needed = subprocess.run(
            ["readelf", "-d", library], capture_output=True, text=True, check=True
        ).stdout
        assert not [one for one in ("libz.", "libzstd", "liblzo", "libsnappy") if one in needed]


def test_host_dump_and_verify(installed: Installed, folder: Path) -> None:
    out = run_in(folder, *cycle(folder, installed.livedump), python=installed.python)
    assert out.endswith(f"all done as {os.geteuid()}\n") and out.count("consistent") == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")
def test_the_same_without_any_right(installed: Installed, folder: Path) -> None:
    os.chown(folder, USER, USER)
    home = installed.base.parents[1]
    use = without_rights(home, folder.parent, *cycle(folder, installed.livedump))
    out = run_in(folder, *use, python=installed.python)
    assert out.endswith(f"all done as {USER}\n") and out.count("consistent") == 3


def test_a_guest_of_qemu(installed: Installed, folder: Path) -> None:
    """By the shim of the wheel."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("no QEMU")
    program = program_file(__file__, "qemu_dump.sh")
    out = run_in(folder, "bash", program, folder, installed.livedump, python=installed.python)
    assert out.endswith("verified\n") and "consistent" in out


def test_arrays_of_a_program(installed: Installed, folder: Path) -> None:
    program = program_file(__file__, "save_an_array.py")
    out = run_in(folder, installed.python, "-P", program, folder / "state.elf")
    assert out == f"consistent {installed.venv}\n"


def test_the_sdist_builds_where_nothing_is(tmp_path: Path) -> None:
    """In an environment that pip makes for the build alone."""
    (sdist,) = (TOP / str(WHEELS)).glob("livedumpfs-*.tar.gz")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    pip(tmp_path / "venv", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(sdist))
    assert list(tmp_path.glob("livedumpfs-*-cp311-abi3-linux_*.whl"))
