# SPDX-License-Identifier: GPL-2.0-or-later
"""The C core and programs around it, built by hand: by any compiler, with any options, from any
copy of the sources."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from native.build_native import CORE, SERVING
from tests.fixtures.compilers import CACHED, cached_environment, compiling

TOP = Path(__file__).resolve().parents[2]
NATIVE = TOP / "native"
LIBRARIES = ("-lz", "-lzstd", "-llzo2", "-lsnappy", "-pthread")
WARNINGS = ("-Wall", "-Wextra", "-Werror")
WORKERS = 2
BUILD_DEADLINE_S = 600
RUN_DEADLINE_S = 600


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it; what it prints, errors too, is in stdout."""
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )


@dataclass(frozen=True)
class Build:
    """One compiler with its options, and where its objects go."""

    place: Path
    compiler: str = "gcc"
    flags: tuple[str, ...] = ("-O2",)

    def _call(self, *arguments: str) -> None:
        command = [*CACHED, self.compiler, "-std=gnu11", *arguments]
        done = run(command, timeout=BUILD_DEADLINE_S, env=cached_environment())
        assert done.returncode == 0, done.stdout

    def object_of(self, source: Path, *extra: str) -> Path:
        """Compile one file; headers of its own folder come first, then those of native/, of the
        copy of it where the file is of one."""
        made = self.place / f"{source.stem}.o"
        # A room of it has its headers beside it.
        native = source.parents[1] if (source.parents[1] / "ldfs.h").exists() else NATIVE
        include = [f"-I{source.parent}", f"-I{native}"]
        self._call(*self.flags, *WARNINGS, *include, *extra, "-c", str(source), "-o", str(made))
        return made

    def objects_of(self, sources: Iterable[Path], *extra: str) -> list[Path]:
        with ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(lambda source: self.object_of(source, *extra), sources))

    def link(self, name: str, objects: Iterable[Path]) -> Path:
        made = self.place / name
        self._call(*self.flags, *map(str, objects), "-o", str(made), *LIBRARIES)
        return made

    @staticmethod
    def sources() -> list[Path]:
        """Of the core without what runs a machine."""
        return [TOP / name for name in (*CORE, *SERVING)]

    def core(self) -> list[Path]:
        return self.objects_of(self.sources())

    def programs(self, names: Collection[str] = ()) -> dict[str, Path]:
        """The programs beside this file, or some of them, each of one file, with the core."""
        core = self.core()
        sources = sorted(Path(__file__).parent.glob("*.c"))
        own = self.objects_of(path for path in sources if not names or path.stem in names)
        return {o.stem: self.link(o.stem, [o, *core]) for o in own}


@pytest.fixture(scope="session")
def building(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Build]:
    """Makes a Build in a new folder."""

    def make(name: str, **options: Any) -> Build:
        return Build(tmp_path_factory.mktemp(name), **options)

    return make


@pytest.fixture(scope="session")
def programs(building: Callable[..., Build]) -> dict[str, Path]:
    """The programs as they are meant to run, or with the options that `make coverage` gives."""
    flags = os.environ.get("LDFS_PROGRAM_FLAGS", "-O2").split()
    with compiling("programs"):
        return building("core", flags=tuple(flags)).programs()


@pytest.fixture(scope="session")
def run_program() -> Callable[..., tuple[int, str]]:
    """Runs one: its exit code and all that it printed."""

    def run_it(
        program: Path, *arguments: str, deadline_s: float = RUN_DEADLINE_S, **environment: str
    ) -> tuple[int, str]:
        try:
            done = run(
                [str(program), *arguments], timeout=deadline_s, env={**os.environ, **environment}
            )
        except subprocess.TimeoutExpired as error:
            pytest.fail(f"{program.name} {arguments} hangs; it printed {error.output!r}")
        return done.returncode, done.stdout

    return run_it
