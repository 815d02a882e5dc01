# SPDX-License-Identifier: GPL-2.0-or-later
"""The helper with the caller's rights: a caller may have it in its hands, and the host goes on."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.rights import opener
from livedumpfs.rights.folder import Refused
from livedumpfs.rights.helper import Helper, RemoteFolder
from tests.fixtures.open_files import no_file_stays_open

DEADLINE_S = 300
GOOD = {"errno": 0, "text": "", "mode": 0, "reason": "", "result": None}


@pytest.fixture
def helper() -> Iterator[Helper]:
    made = Helper(threading.get_native_id(), os.geteuid(), os.getegid())
    yield made
    made.end()


def answering(helper: Helper, data: bytes, give: bool) -> None:
    """From now on that comes back for each question, with a descriptor or without."""

    def exchange(request: bytes, deadline: float) -> tuple[bytes, list[int]]:
        del request, deadline
        return data, [os.open("/dev/null", os.O_RDWR)] if give else []

    helper._exchange = exchange  # type: ignore[method-assign]


STEPS: dict[str, Callable[[Helper, RemoteFolder], Any]] = {
    "find": lambda helper, _: helper.find("/nothing"),
    "look": lambda _, folder: folder.look("x"),
    "open": lambda _, folder: folder.open("x", write=False),
    "make": lambda _, folder: folder.make("x", None),
    "remove": lambda _, folder: folder.remove("x"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "data",
    [b"", b"nothing", b"\xff", b"[]", b"7", b"null", b"{}",
     b'{"errno": 0}', json.dumps(GOOD).encode(),
     json.dumps(GOOD | {"errno": None}).encode(), json.dumps(GOOD | {"mode": "x"}).encode(),
     json.dumps(GOOD | {"errno": 13}).encode()],
    ids=range(12),
)  # fmt: skip
def test_no_answer_is_an_error_and_no_descriptor_stays(
    helper: Helper, step: str, data: bytes
) -> None:
    folder = RemoteFolder(helper, 0)
    whole = data == json.dumps(GOOD).encode()
    for give in (False, True):
        answering(helper, data, give)
        if whole and step != "find" and give == (step in ("open", "make")):
            continue  # that is one
        with no_file_stays_open(), pytest.raises(Refused) as caught:
            STEPS[step](helper, folder)
        assert caught.value.errno == (errno.EACCES if b"13" in data else errno.EIO)


LISTS = b"[" * 60_000
WRONG: dict[str, tuple[bytes, ...]] = {
    "find": tuple(
        json.dumps(GOOD | {"path": "x", "folder": None} | change).encode()
        for change in (
            {"path": 7}, {"folder": "0"}, {"folder": -1}, {"folder": True}, {"errno": 1 << 70},
            {"errno": 13, "text": ["x"]}, {"errno": 13, "mode": 1 << 70},
        )
    ),
    "look": tuple(
        json.dumps(GOOD | {"result": result}).encode()
        for result in (7, "12345", [1, 2, 3, 4], [1, 2, 3, 4, None], {"device": 1})
    ),
    "remove": (json.dumps(GOOD | {"result": "done"}).encode(), LISTS),
    "make": (json.dumps(GOOD | {"result": 3}).encode(), LISTS),
}  # fmt: skip


@pytest.mark.parametrize("step", WRONG)
@pytest.mark.parametrize("give", [False, True])
def test_an_answer_of_another_kind_is_none(helper: Helper, step: str, give: bool) -> None:
    """It went on as if it were one, or ended the host's thread."""
    folder = RemoteFolder(helper, 0)
    for data in WRONG[step]:
        answering(helper, data, give)
        with no_file_stays_open(), pytest.raises(Refused, match="gave no answer"):
            STEPS[step](helper, folder)


def test_names_that_are_no_text_come_through(helper: Helper, tmp_path: Path) -> None:
    odd = os.fsdecode(b"odd \xff name")
    (tmp_path / odd).write_bytes(b"x")
    found = helper.find(str(tmp_path / odd))
    os.close(found.fd)
    assert found.path == str(tmp_path / odd)
    assert isinstance(found.folder, RemoteFolder)
    assert found.folder.names("odd", "name") == [odd]


def test_a_question_that_makes_no_sense_ends_no_helper(helper: Helper, tmp_path: Path) -> None:
    for step, details in {"nothing": {}, "look": {"folder": 7}, "find": {}}.items():
        with pytest.raises(Refused):
            helper.ask(step, **details)
    assert helper.find(str(tmp_path / "no")).fd == -1


def test_a_helper_that_fails_shows_nothing_and_imports_nothing() -> None:
    """Its root may be the caller's by then, and so what lies in the folders of its Python: newer
    ones import what shows a traceback. Here no process is left that takes its answer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        program = str(Path(opener.__file__).resolve())
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", program, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        theirs.close()
        ours.send(json.dumps({"step": "nothing"}).encode())
    assert process.communicate(timeout=DEADLINE_S)[0] == b""
    assert process.returncode == 0
