# SPDX-License-Identifier: GPL-2.0-or-later
"""What an sdist and a wheel hold: also the guest and the header for C programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import livedumpfs
from livedumpfs import headers
from livedumpfs.errors import MachineError
from livedumpfs.machines import UnicornMachine, unicorn
from tests.fixtures.cycles import USER, cycle, run_in, without_rights
from tests.fixtures.patience import FOLDER
from tests.fixtures.program_files import program_command, program_file

TOP = Path(__file__).resolve().parents[2]
DEADLINE_S = 200


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


LARGEST_SDIST = 5 << 18
pytestmark = pytest.mark.together  # they share a wheel that is built and installed


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked. From a copy of what the repository has: the build writes beside its sources."""
    folder = tmp_path_factory.mktemp("sdist")
    names = run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=TOP)
    if names.returncode:
        pytest.skip("this is no clone")
    tree = folder / "tree"
    for name in filter(None, names.stdout.split("\0")):
        if (TOP / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TOP / name, tree / name)
    made = run(sys.executable, "setup.py", "-q", "sdist", "-d", str(folder), cwd=tree)
    assert made.returncode == 0, made.stderr
    (archive,) = folder.glob("*.tar.gz")
    assert archive.stat().st_size < LARGEST_SDIST, "samples and pictures stay out of the repository"
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked")  # Debian 12's Python has no filters yet
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def archive(sdist: Path) -> Path:
    """The wheel, made of the sdist as `make wheels` does. The core is not optimized: this is not
    about it."""
    out = sdist.parent / "wheel"
    made = run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
        "--no-index", "-w", out, ".", cwd=sdist, LDFS_CFLAGS="-O0 -g0", LDFS_STATIC_CODECS="1",
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    (archive,) = out.glob("livedumpfs-*.whl")
    return archive


@pytest.fixture(scope="module")
def wheel(archive: Path) -> Path:
    """Unpacked."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(archive.parent / "unpacked")
    return archive.parent / "unpacked"


def test_the_sdist_has_what_a_wheel_is_made_of(sdist: Path) -> None:
    for name in (
        "setup.py", "pyproject.toml", "requirements.txt", "native/livedump_ioctl.h",
        "native/shim/serve.c", "native/build_native.py", "guest/Makefile", "guest/ledger.c",
        "scripts/livedump", "docs/cli.md", "livedumpfs/py.typed",
        "livedumpfs/html_report/page.html", "livedumpfs/html_report/page.css",
    ):  # fmt: skip
        assert (sdist / name).is_file(), name


def test_the_wheel_has_guest_and_header(wheel: Path) -> None:
    package = wheel / "livedumpfs"
    guests = [package / "guest" / "ledger.elf"]
    if shutil.which("riscv64-linux-gnu-gcc"):
        guests.append(package / "guest" / "ledger-riscv64.elf")
    for guest in guests:
        assert guest.read_bytes()[:4] == b"\x7fELF"
    header = package / "include" / headers.HEADER
    assert header.read_bytes() == (TOP / "native" / headers.HEADER).read_bytes()
    assert list(package.glob("_native*.so")) and list(package.glob("_shim*.so"))
    assert (package / "py.typed").exists()
    (record,) = wheel.glob("*.dist-info/RECORD")
    for name in (
        *("guest/ledger.elf", f"include/{headers.HEADER}"),
        *("html_report/page.html", "html_report/page.css"),
    ):
        assert f"livedumpfs/{name},sha256=" in record.read_text()


def test_an_installed_package_says_where_the_header_is_and_runs_its_guest(wheel: Path) -> None:
    done = run(*program_command(__file__, "installed_package.py"), cwd=wheel, PYTHONPATH=str(wheel))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == [str(wheel / "livedumpfs" / "include"), "ledger"]


def test_one_wheel_is_for_each_python_and_has_the_codecs_inside(archive: Path, wheel: Path) -> None:
    assert "-cp311-abi3-linux_" in archive.name
    for name in ("_native", "_shim"):
        library = wheel / "livedumpfs" / f"{name}.abi3.so"
        needed = run("readelf", "-d", library, cwd=wheel).stdout
        assert "libc.so" in needed
        assert not re.search(r"lib(z|zstd|lzo2|snappy)\.so", needed)
        # The shim's names come before those of QEMU's own libraries.
        seen = run("nm", "-D", "--defined-only", library, cwd=wheel).stdout
        assert not re.search(r" (deflate|ZSTD_|lzo|snappy_)", seen)


def test_each_extra_that_the_wheel_names_is_pinned(wheel: Path) -> None:
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    text = metadata.read_text()
    for file in TOP.glob("requirements-*.txt"):
        extra = file.stem.removeprefix("requirements-")
        named = re.findall(rf'^Requires-Dist: (.*); extra == "{extra}"$', text, re.M)
        pins = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert named == (pins if extra not in ("bench", "browser", "wheels") else [])


@pytest.fixture
def installed(archive: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment with the wheel, and what it needs from the one of these tests."""
    venv = open_folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=open_folder)
    python = str(venv / "bin/python")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps")
    made = run(*pip, "--no-index", archive, cwd=open_folder)
    assert made.returncode == 0, made.stderr
    (site,) = venv.glob("lib/python3.*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    monkeypatch.setenv("PYTHONPATH", FOLDER)  # not this tree
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)  # pip has compiled it, beside it
    return venv


def test_an_installed_wheel_dumps_without_any_right(installed: Path, open_folder: Path) -> None:
    """The long form, with other Pythons, all from PyPI, and as root: test_wheels.py."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    work = open_folder / "work"
    work.mkdir()
    use, user = cycle(work, installed / "bin/livedump"), os.geteuid()
    if user == 0:
        user = USER
        os.chown(work, USER, USER)
        use = without_rights(Path(sys.base_prefix), open_folder, *use)
    out = run_in(work, *use, python=installed / "bin/python")
    assert out.endswith(f"all done as {user}\n") and out.count("consistent") == 3


def without_compiler(sdist: Path, folder: Path) -> Path:
    """A copy of the sdist whose guest no compiler builds."""
    tree = folder / "tree"
    shutil.copytree(sdist, tree, ignore=shutil.ignore_patterns("build", "*.o", "*.elf"))
    return tree


def test_no_guest_is_no_wheel_and_one_sentence(sdist: Path, tmp_path: Path) -> None:
    tree = without_compiler(sdist, tmp_path)
    command = (sys.executable, "setup.py", "-q", "build_py", "-d", str(tmp_path / "out"))
    failed = run(*command, cwd=tree, GUEST_CC="/bin/false")
    assert failed.returncode == 1
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("error: cannot build the built-in guest livedumpfs/guest/ledger.elf: ")
    assert last.endswith("(it needs make and a gcc for x86-64: GUEST_CC names a cross compiler)")
    (tree / "livedumpfs/guest").mkdir(exist_ok=True)
    (tree / "livedumpfs/guest/ledger.elf").write_bytes(b"\x7fELF made elsewhere")
    os.utime(tree / "livedumpfs/guest/ledger.elf", (1, 1))
    done = run(*command, cwd=tree, GUEST_CC="/bin/false")
    assert done.returncode == 0, done.stderr
    assert "livedumpfs/guest/ledger.elf is taken as it is" in done.stdout + done.stderr
    assert (tmp_path / "out/livedumpfs/guest/ledger.elf").read_bytes().endswith(b"elsewhere")


def test_without_a_compiler_for_riscv64_there_is_the_guest_for_x86_64(
    sdist: Path, tmp_path: Path
) -> None:
    tree = without_compiler(sdist, tmp_path)
    done = run("make", "-s", "all", cwd=tree / "guest", GUEST_CC_RISCV64="no-such-compiler")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tree / "livedumpfs/guest").iterdir()] == ["ledger.elf"]


def test_a_guest_that_is_not_there_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unicorn, "BUILT_IN_GUEST", tmp_path / "ledger.elf")
    with pytest.raises(MachineError, match=r"the built-in guest .* is not there \(.*--guest FILE"):
        UnicornMachine("16MiB")


@pytest.mark.parametrize(
    ("compiler", "language", "standard"),
    [("cc", "c", "c11"), ("cc", "c", "gnu17"), ("c++", "c++", "c++17")],
)
def test_a_program_that_has_the_header_alone(
    compiler: str, language: str, standard: str, tmp_path: Path
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    source = program_file(__file__, "header_alone.c")
    done = run(
        compiler, "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-pedantic",
        "-Wno-missing-field-initializers", "-I", livedumpfs.get_include(), "-o",
        tmp_path / "out", source, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert run(tmp_path / "out", cwd=tmp_path).returncode == 0


def test_each_enum_that_the_header_names_is_in_it() -> None:
    """It named one of the core's own header."""
    text = (TOP / "native" / headers.HEADER).read_text()
    assert "ldfs_" not in text and "enum " not in text
