# SPDX-License-Identifier: GPL-2.0-or-later
"""What brings QEMU back after a background snapshot, beside a QEMU that is played here."""

from __future__ import annotations

import errno
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from livedumpfs.core.arena import Arena
from livedumpfs.errors import MachineError
from livedumpfs.machines.attach import lifeline_program, lifeline_requests
from livedumpfs.machines.attach.lifeline_program import (
    BEGUN,
    DONE,
    NOT_BEGUN,
    PAUSED_AGAIN,
    RESUMED,
    Told,
)
from livedumpfs.machines.attach.lifeline_requests import RefusedRequest, Requests
from livedumpfs.machines.attach.migration_end import BACKGROUND, Former
from livedumpfs.machines.attach.migration_settings import MigrationSettings
from livedumpfs.machines.attach.received_memory import RamBlock, ReceivedMemory
from livedumpfs.machines.attach.window import StreamError
from livedumpfs.units import PAGE_SIZE

FORMER = Former({"max-bandwidth": (1 << 40, 1 << 20)}, background=False)
OFF = {"capabilities": [{"capability": BACKGROUND, "state": False}]}


class PlayedQemu:
    """Refuses or is silent as often as it is told, then obeys."""

    def __init__(self, **state: Any) -> None:
        self.parameters: dict[str, Any] = {"max-bandwidth": 1 << 40}
        self.on = True
        self.run_state, self.migration = "running", "completed"
        self.has_stream = False
        self.fails: dict[str, list[OSError]] = {}
        self.said: list[str] = []
        self.resumed = False
        self.late: set[str] | None = set()
        self.__dict__.update(state)

    def ask(self, command: str, arguments: Any = None) -> Any:
        self.said.append(command)
        if self.fails.get(command):
            raise self.fails[command].pop()
        return getattr(self, command.replace("-", "_"))(arguments)

    def closefd(self, _: Any) -> Any:
        if not self.has_stream:
            raise RefusedRequest(errno.EINVAL, "no such file")
        return {}

    def query_migrate(self, _: Any) -> Any:
        return {"status": self.migration}

    def query_migrate_capabilities(self, _: Any) -> Any:
        return [{"capability": BACKGROUND, "state": self.on}]

    def query_migrate_parameters(self, _: Any) -> Any:
        return self.parameters

    def migrate_set_parameters(self, arguments: Any) -> Any:
        self.parameters |= arguments
        return {}

    def migrate_set_capabilities(self, arguments: Any) -> Any:
        self.on = arguments["capabilities"][0]["state"]
        return {}

    def query_status(self, _: Any) -> Any:
        return {"status": self.run_state}

    def cont(self, _: Any) -> Any:
        self.run_state = "running"
        return {}

    def stop(self, _: Any) -> Any:
        self.run_state = "paused"
        return {}


class NothingToDrain:
    ended = True

    def wait(self) -> None:
        pass


def told(*signs: bytes, paused: bool = False, lets_run: bool = False) -> Told:
    found = Told()
    first = {"former": asdict(FORMER), "paused": paused, "lets_run": lets_run}
    line = json.dumps(first).encode() + b"\n"
    for at in range(len(line)):  # as it comes in the worst case
        found.hear(line[at : at + 1])
    found.hear(b"".join(signs))
    return found


def rescue(qemu: PlayedQemu, heard: Told, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(lifeline_program, "_AGAIN_S", 0.0)
    drain: Any = NothingToDrain()
    requests: Any = qemu
    return lifeline_program.Rescue(requests, drain, 0, heard).run()


def test_a_silent_and_refusing_qemu_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A main loop that waits for a disk, and another program's migration that has just begun."""
    qemu = PlayedQemu(
        fails={
            "closefd": [TimeoutError(), TimeoutError()],
            "query-migrate": [TimeoutError()],
            "migrate-set-parameters": [RefusedRequest(errno.EINVAL, "in progress")],
            "migrate-set-capabilities": [RefusedRequest(errno.EINVAL, "in progress")],
        }
    )
    assert rescue(qemu, told(BEGUN, RESUMED), monkeypatch)
    assert not any(qemu.fails.values())
    assert qemu.parameters == {"max-bandwidth": 1 << 20} and not qemu.on


def test_a_qemu_that_has_gone_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = PlayedQemu(fails={"closefd": [ConnectionResetError()]})
    assert not rescue(qemu, told(BEGUN), monkeypatch)
    assert qemu.said == ["closefd"]


@pytest.mark.parametrize(
    ("state", "migration", "signs", "wanted"),
    [
        ("paused", "failed", [BEGUN], "running"),  # its disks could not be flushed
        ("paused", "failed", [BEGUN, RESUMED], "paused"),  # it is paused by another program
        ("paused", "completed", [BEGUN, RESUMED], "paused"),
        ("paused", "failed", [BEGUN, NOT_BEGUN], "paused"),
        ("paused", "failed", [], "paused"),
        ("postmigrate", "completed", [BEGUN, RESUMED], "postmigrate"),  # it runs elsewhere
        ("postmigrate", "completed", [BEGUN], "postmigrate"),  # perhaps it does
        ("running", "completed", [BEGUN, RESUMED], "running"),
    ],
)
def test_only_what_our_migration_has_stopped_is_let_run(
    state: str, migration: str, signs: list[bytes], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = PlayedQemu(run_state=state, migration=migration)
    assert rescue(qemu, told(*signs), monkeypatch)
    assert qemu.run_state == wanted


def test_a_guest_that_was_paused_is_paused_again_and_never_let_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for qemu, signs, lets_run, wanted in (
        (PlayedQemu(), [BEGUN], True, "paused"),
        (PlayedQemu(), [], True, "running"),
        (PlayedQemu(has_stream=True), [BEGUN], True, "running"),  # it has not come to `migrate`
        # Another program has let it run since.
        (PlayedQemu(), [BEGUN, RESUMED, PAUSED_AGAIN], True, "running"),
        (PlayedQemu(), [BEGUN, RESUMED], False, "running"),
        (PlayedQemu(run_state="paused", migration="failed"), [BEGUN], False, "paused"),
    ):
        assert rescue(qemu, told(*signs, paused=True, lets_run=lets_run), monkeypatch)
        assert qemu.run_state == wanted


@pytest.mark.parametrize(
    ("late", "wanted"),
    [(set(), "running"), ({"closefd"}, "paused"), (None, "paused")],
    ids=["refused", "closed", "not known"],
)
def test_a_closed_stream_whose_answer_did_not_come(
    late: set[str] | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it was closed, QEMU has never come to `migrate`: what stands is another program's."""
    qemu = PlayedQemu(
        run_state="paused", migration="failed", fails={"closefd": [TimeoutError()]}, late=late
    )
    assert rescue(qemu, told(BEGUN), monkeypatch)
    assert qemu.run_state == wanted


def test_an_answer_that_comes_late() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.MonkeyPatch.context() as patch:
        requests = Requests(ours)
        patch.setattr(lifeline_requests, "_PATIENCE_S", 0.0)
        for command in ("closefd", "query-migrate"):
            with pytest.raises(TimeoutError):
                requests.ask(command)
        patch.setattr(lifeline_requests, "_PATIENCE_S", 60.0)
        theirs.sendall(
            b'{"return": {}, "id": "livedump-lifeline-1"}\n'
            b'{"error": {}, "id": "livedump-lifeline-2"}\n'
            b'{"return": 5, "id": "livedump-lifeline-3"}\n'
        )
        assert requests.ask("next") == 5
        assert requests.late == {"closefd"}


def test_another_migration_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU's monitor is not held for ever."""
    monkeypatch.setattr(lifeline_program, "_LONGEST_S", 0.1)
    qemu = PlayedQemu(migration="postcopy-paused")
    assert not rescue(qemu, told(BEGUN), monkeypatch)
    assert qemu.on


def test_the_last_word_stays() -> None:
    assert told(BEGUN, DONE, RESUMED).done


def test_what_another_program_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = PlayedQemu(parameters={"max-bandwidth": 7})
    assert rescue(qemu, told(BEGUN), monkeypatch)
    assert qemu.parameters == {"max-bandwidth": 7} and "migrate-set-parameters" not in qemu.said


def test_answers_that_the_dead_host_has_asked_for() -> None:
    """The end of one that it has read in part, another one's, and an event before the answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        requests = Requests(ours)
        theirs.sendall(
            b'rest"}\n{"return": 1, "id": "__qmp#1"}\n{"event": "RESUME"}\n'
            b'{"return": 2, "id": "livedump-lifeline-1"}\n'
            b'{"error": {"desc": "no"}, "id": "livedump-lifeline-2"}\n'
        )
        assert requests.ask("first") == 2 and requests.resumed
        with pytest.raises(RefusedRequest, match="no"):
            requests.ask("second")


class PlayedMonitor:
    def __init__(self, qemu: PlayedQemu) -> None:
        self._qemu = qemu

    def execute(self, command: str, arguments: Any = None, **_: Any) -> Any:
        try:
            return self._qemu.ask(command, arguments)
        except OSError as error:
            raise MachineError(str(error), errno=error.errno or 0) from error


@pytest.mark.parametrize(
    "late", ["migrate-set-capabilities", "migrate-set-parameters"], ids=["capability", "bandwidth"]
)
def test_settings_whose_answer_did_not_come_are_given_back(late: str) -> None:
    """QEMU may have changed them all the same."""
    qemu = PlayedQemu(on=False, parameters={"max-bandwidth": 5})
    obey = qemu.ask

    def ask(command: str, arguments: Any = None) -> Any:
        found = obey(command, arguments)
        if command == late:
            qemu.ask = obey  # type: ignore[method-assign]
            raise TimeoutError(errno.ETIMEDOUT, "no answer")
        return found

    qemu.ask = ask  # type: ignore[method-assign]
    monitor: Any = PlayedMonitor(qemu)
    settings = MigrationSettings(monitor)
    with pytest.raises(MachineError):
        settings.change()
    assert qemu.on
    assert settings.give_back()
    assert not qemu.on and qemu.parameters == {"max-bandwidth": 5}


def test_a_reader_of_the_last_instant_just_as_the_next_start_begins() -> None:
    """At each step of it: what the reader sees then is not taken for the next instant."""
    with ReceivedMemory([RamBlock("ram", PAGE_SIZE, 0)]) as arena:
        arena.show()
        seen: list[tuple[int, bool]] = []

        def trace(frame: Any, event: str, _: Any) -> Any:
            if frame.f_code.co_name == "forget_received":
                frame.f_trace_opcodes = True
                seen.append((arena._emptied, arena._whole))
                return trace
            return None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            arena.forget_received()
        finally:
            sys.settrace(before)
        assert len(seen) > 3 and (1, True) not in seen


def test_a_read_beside_the_next_start_gets_no_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: Callable[..., bytes] = Arena.read
    with ReceivedMemory([RamBlock("ram", PAGE_SIZE, 0)]) as arena:
        arena.live[:] = ord("a")
        arena.show()
        assert arena.read(0, 4) == b"aaaa"

        def emptied(self: Any, *given: int) -> bytes:
            arena.forget_received()
            found = plain(self, *given)
            arena.show()  # the next instant is there already
            return found

        monkeypatch.setattr(Arena, "read", emptied)
        with pytest.raises(MachineError, match="before START"):
            arena.read(0, 4)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["0000:00:02.0/ram", "ram"], "ram"),
        (["0000:00:02.0/ram", "/objects/ram"], "/objects/ram"),
        (["0000:00:02.0/ram"], "0000:00:02.0/ram"),
        (["0000:00:02.0/ram", "0000:00:03.0/ram"], None),
        (["rom"], None),
    ],
)
def test_which_block_of_a_stream_is_a_backends(names: list[str], found: str | None) -> None:
    block, blocks = RamBlock("ram", PAGE_SIZE, 0), dict.fromkeys(names, PAGE_SIZE)
    if found:
        assert block.among(blocks) == found
    else:
        with pytest.raises(StreamError):
            block.among(blocks)
