# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules count the dumps of each machine apart, also where several machines are of one kind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs.cli.main import main
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.formats import Plan
from livedumpfs.hosts.registry import own_mount
from livedumpfs.machines.qemu.qmp_commands import QmpCommands
from livedumpfs.stores import DumpRecord, Retention, StoredDump, create_store, kept
from livedumpfs.stores.reception import Reception
from tests.fixtures.small_stores import BEGAN, HOUR, keep_file
from tests.fixtures.store_streams import flattened, records_of
from tests.stores.stored_dumps import CHUNK, MACHINE, MEMORY

WriteDump = Callable[..., Plan]
MINUTE = HOUR // 60


def dump(vm: str, number: int, *, machine: str = "qemu", identity: str | None = None) -> StoredDump:
    """The dump of an hour; that of `mail` is a minute later than the others."""
    at = BEGAN + number * HOUR + (MINUTE if vm == "mail" else 0)
    record = DumpRecord(
        dump_id="0" * 32,
        verdict="consistent",
        machine=machine,
        identity=vm if identity is None else identity,
        host="server",
        instant_ns=at,
    )
    return StoredDump(f"{vm}-{number:02}", record, 1, at)


@pytest.mark.parametrize("rules", [Retention(hourly=24), Retention(last=1), Retention(daily=2)])
def test_two_guests_of_one_computer(rules: Retention) -> None:
    both = [dump(vm, number) for number in range(30) for vm in ("db", "mail")]
    each = {
        vm: kept([one for one in both if one.name.startswith(vm)], rules).keys()
        for vm in ("db", "mail")
    }
    assert each["db"] and kept(both, rules).keys() == each["db"] | each["mail"]


def test_one_guest_attached_or_under_us_is_one_machine() -> None:
    dumps = [dump("db", 0, machine="qemu"), dump("db", 1, machine="qemu-attached")]
    assert kept(dumps, Retention(last=1)).keys() == {"db-01"}


@pytest.mark.parametrize("kind", ["qemu", "qemu-attached", "ledger", "guest", "threads", ""])
def test_rules_are_refused_where_it_is_not_known(kind: str) -> None:
    dumps = [dump("db", 0), *(dump("old", n, machine=kind, identity="") for n in (1, 2))]
    with pytest.raises(UsageError, match=r"old-01 and 1 more may be of any .*DUMP\.\.\. arguments"):
        kept(dumps, Retention(last=1))
    named = [dump("own", n, machine="own", identity="") for n in (1, 2)]  # a program's own name
    assert kept(named, Retention(last=1)).keys() == {"own-02"}


def test_forget_says_so_and_takes_names(
    tmp_path: Path, write_dump: WriteDump, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "store")
    write_dump(tmp_path / "dump", MEMORY, granule=CHUNK, machine=MACHINE)
    with create_store(place) as store:
        for name in ("a", "b"):
            keep_file(store, tmp_path / "dump", name, machine="qemu")
        with pytest.raises(SystemExit, match="2"):
            raise SystemExit(main(["forget", place, "--keep-last", "1"]))
        assert "name the dumps that are to go, as DUMP... arguments" in capsys.readouterr().err
        assert store.names() == ["a", "b"]
        assert main(["forget", place, "a"]) == 0 and store.names() == ["b"]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, "/mnt/host"),
        ({"machine": {"identity": "mail"}}, "mail"),
        ({"machine": {}}, "/mnt/host"),
    ],
)
def test_a_record_has_what_the_machine_says_or_else_the_host(
    tmp_path: Path, write_dump: WriteDump, said: dict[str, object], found: str
) -> None:
    write_dump(tmp_path / "dump", MEMORY, granule=CHUNK, machine=MACHINE, meta=said)
    data = flattened(records_of(tmp_path / "dump", CHUNK))
    with create_store(str(tmp_path / "s")) as store, Reception(store, identity="/mnt/host") as into:
        with open(into.path, "wb") as pipe:
            into.let_go()
            writer = threading.Thread(target=lambda: pipe.write(data))
            writer.start()
            writer.join(120)
            assert not writer.is_alive()
        assert into.finish(120).record.identity == found


class Asked(QmpCommands):
    """Answers so."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers

    def execute(
        self,
        command: str,
        arguments: dict[str, object] | None = None,
        *,
        timeout: float | None = None,
    ) -> object:
        del arguments, timeout
        if command not in self._answers:
            raise MachineError("QEMU refuses it")
        return self._answers[command]


def test_name_and_uuid_of_a_guest() -> None:
    name: dict[str, object] = {"query-name": {"name": "mail"}}
    uuid: dict[str, object] = {"query-uuid": {"UUID": "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"}}
    assert Asked(**name, **uuid).identity() == "mail 4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
    none = {"query-uuid": {"UUID": "00000000-0000-0000-0000-000000000000"}}
    assert Asked(**name, **none).identity() == "mail"
    assert Asked(**{"query-name": {}, **none}).identity() == ""
    assert Asked().identity() == Asked(**{"query-name": 3}).identity() == ""


def test_a_mount_that_has_only_a_number_is_no_name() -> None:
    assert own_mount("/run/livedumpfs/host-1234")
    assert not own_mount("/mnt/host-web") and not own_mount("/mnt/vm1")
