# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs in a process of their own, with handlers.c beside them; a host to interfere with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aftermath import Host

from tests.fixtures import forks
from tests.fixtures.patience import patient_path

FOLDER = Path(__file__).resolve().parent

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def host(run_host: Callable[..., Host]) -> Host:
    return run_host(rate=10)  # a slow sweep finds something to do


@pytest.fixture(scope="session")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """handlers.c as a library."""
    library = tmp_path_factory.mktemp("handlers") / "handlers.so"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += ["-o", str(library), str(FOLDER / "handlers.c")]
    subprocess.run(command, check=True, timeout=300)
    return library


@pytest.fixture
def beside_handlers(handlers: Path) -> Callable[..., Done]:
    """Runs Python on these arguments, with $HANDLERS and $BACKEND, and no faulthandler
    unasked."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONFAULTHANDLER"}
    environment |= {"HANDLERS": str(handlers), "PYTHONPATH": patient_path(FOLDER)}

    def run(*arguments: str, backend: str = "sigsegv") -> Done:
        return forks.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False,
            env=environment | {"BACKEND": backend},
        )  # fmt: skip

    return run
