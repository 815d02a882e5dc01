# SPDX-License-Identifier: GPL-2.0-or-later
"""fixtures/order.py, in a small suite of its own that several processes run."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.fixtures.program_files import program_file
from tests.fixtures.small_suite import suite_command, suite_environment


def suite(folder: Path, mark: str) -> list[str]:
    """The workers that began a test that is not alone, of a file with that mark for all of it."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    alone\n    together\n")
    (folder / "conftest.py").write_text('pytest_plugins = ["tests.fixtures.order"]\n')
    text = program_file(__file__, "suite_in_order.py").read_text()
    (folder / "test_suite.py").write_text(text.replace("# TOGETHER", mark))
    done = subprocess.run(
        suite_command(folder, workers=3), cwd=folder, env=suite_environment(),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout
    assert len(list(folder.glob("alone-*"))) == 1
    return [path.name for path in folder.glob("beside-*")]


def test_nothing_runs_beside_a_test_that_is_alone(tmp_path: Path) -> None:
    assert len(suite(tmp_path, "")) > 1, "they ran one after the other"


def test_the_tests_of_a_file_that_belong_together_are_run_by_one_process(tmp_path: Path) -> None:
    assert len(suite(tmp_path, "pytestmark = pytest.mark.together")) == 1
