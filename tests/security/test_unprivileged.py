# SPDX-License-Identifier: GPL-2.0-or-later
"""A host without any right of root's: a user's own, and the root of a rootless container.

Rights are only asked for where the job needs them; the one that is missing is named.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.control.caller import Caller
from livedumpfs.control.caller_target import open_for
from livedumpfs.control.settings_files import Settings
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import TargetError
from livedumpfs.rights import opener
from livedumpfs.rights.folder import Refused
from tests.fixtures.cycles import USER, cycle, run_in, unshare, without_rights
from tests.fixtures.program_files import program_command

TOP = Path(__file__).resolve().parents[2]
DEADLINE_S = 300

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")


@pytest.fixture
def folder(open_folder: Path) -> Iterator[Path]:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    place = open_folder / "work"
    place.mkdir()
    yield place
    shutil.rmtree(place)


def test_the_root_of_a_rootless_container(folder: Path) -> None:
    """One id, and setgroups is denied, also with the groups that the process has."""
    out = run_in(folder, *unshare("-Urm"), *cycle(folder, TOP / "scripts/livedump"))
    assert out.endswith("all done as 0\n")
    assert out.count("consistent") == 3


@needs_root
def test_a_user_without_rights(folder: Path) -> None:
    os.chown(folder, USER, USER)
    use = cycle(folder, TOP / "scripts/livedump")
    out = run_in(folder, *without_rights(Path(sys.base_prefix), folder.parent, *use))
    assert out.endswith(f"all done as {USER}\n")
    assert out.count("consistent") == 3
    assert {one.stat().st_uid for one in folder.iterdir()} == {USER}


# ------------------------------------------------------------------ the opener alone


def outcome(name: str, *arguments: str, wrap: tuple[str, ...] = (), bounding: str = "") -> str:
    """What a program of programs/ printed that calls the opener on its own process."""
    less = ["setpriv", f"--bounding-set={bounding}"] if bounding else []
    done = subprocess.run(
        [*wrap, *less, *program_command(__file__, name, *arguments)],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def taken(*changes: dict[str, Any], user: int = 0, **options: Any) -> list[str]:
    """What the opener says to each change of the ids of its own process."""
    return outcome("take_ids.py", str(user), *map(json.dumps, changes), **options).splitlines()


def test_what_is_so_already_needs_no_right() -> None:
    unshare("-Ur")
    assert taken({}, wrap=("unshare", "-Ur")) == ["done (0, 0, 0)"]


def test_groups_that_cannot_be_taken_are_named() -> None:
    unshare("-Ur")
    (said,) = taken({"groups": [0, 5]}, wrap=("unshare", "-Ur"))
    assert said == (
        f"{errno.EPERM} the host cannot take the caller's supplementary groups (denied in the user "
        "namespace of the host): run it as the caller's user, or with CAP_SETGID"
    )


@needs_root
def test_ids_that_cannot_be_taken_are_named() -> None:
    lines = taken({"gid": 7}, {"uid": 7}, {}, bounding="-setuid,-setgid")
    assert lines[0].endswith("act for group 7: run it as the caller's user, or with CAP_SETGID")
    assert lines[1].endswith("act for user 7: run it as the caller's user, or with CAP_SETUID")
    assert lines[2] == "done (0, 0, 0)"


@needs_root
def test_a_host_that_is_not_root_acts_for_no_other_user() -> None:
    lines = taken({}, {"groups": [3]}, {"uid": 8}, user=7)
    assert lines[:2] == ["done (7, 7, 7)"] * 2
    assert lines[2].endswith("act for user 8: run it as the caller's user, or with CAP_SETUID")


@needs_root
def test_a_host_that_is_not_root_lends_no_right() -> None:
    """What it has itself, as by AmbientCapabilities= of a service, is not its caller's."""
    assert outcome("lend_rights.py").split() == ["0", "2"]


@needs_root
def test_the_right_that_is_missing_comes_out_of_the_helper() -> None:
    with subprocess.Popen(["sleep", "600"], user=7, group=7, extra_groups=[]) as caller:
        try:
            said = outcome("helper_of.py", str(caller.pid), bounding="-setuid,-setgid")
        finally:
            caller.kill()
    assert said.startswith(f"{errno.EPERM} the host cannot ") and said.endswith("CAP_SETGID\n")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("the host cannot act for user 7: run it as that", " (the host cannot act for user 7: run"),
        (os.strerror(errno.EPERM), ""),  # of the file: the host has all that it needs
    ],
)
def test_the_sentence_reaches_who_asked(
    monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        answer = opener.describe(PermissionError(errno.EPERM, said))
        raise Refused(answer["errno"], answer["text"])

    monkeypatch.setattr("livedumpfs.control.caller_target.Helper", refuse)
    with pytest.raises(TargetError) as caught:
        open_for(Caller(7, 7, 1), Settings(DumpSettings(), output="/x"))
    assert str(caught.value).startswith(f"cannot open /x: Operation not permitted{told}")
    assert told or str(caught.value) == "cannot open /x: Operation not permitted"
