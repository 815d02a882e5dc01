# SPDX-License-Identifier: GPL-2.0-or-later
"""fixtures/interrupt.py, in a small suite of its own that several processes run."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.fixtures.program_files import program_file
from tests.fixtures.small_suite import suite_command, suite_environment

DEADLINE_S = 300.0


def behind_a_shell() -> None:
    """What is in the background of a shell without job control ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_what_the_tests_have_made_is_taken_down(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tests.fixtures.interrupt"]\n')
    shutil.copy(program_file(__file__, "suite_that_waits.py"), tmp_path / "test_suite.py")
    run = subprocess.Popen(
        suite_command(tmp_path, workers=2), cwd=tmp_path, env=suite_environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=behind_a_shell,
    )  # fmt: skip
    try:
        end = time.monotonic() + DEADLINE_S
        while len(list(tmp_path.glob("made-*"))) < 2:
            assert run.poll() is None and time.monotonic() < end, "the tests do not begin"
            time.sleep(0.02)
        run.send_signal(how)
        said, _ = run.communicate(timeout=DEADLINE_S)
    finally:
        run.kill()
    assert run.returncode == pytest.ExitCode.INTERRUPTED, said
    assert not list(tmp_path.glob("made-*")), said
    assert len(list(tmp_path.glob("taken-down-*"))) == 2, said
