# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock of an object store: what has it, how long, and when it is free again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from livedumpfs.errors import TargetError
from livedumpfs.stores import create_store, open_store
from livedumpfs.stores import lease as leases
from livedumpfs.stores.lease import FOLDER, HELD_S, STALE_S, Holder
from livedumpfs.stores.objects import Listed
from livedumpfs.stores.remote_objects import DEADLINE_S, RemoteObjects
from livedumpfs.stores.store import open_objects
from tests.fixtures.object_servers import S3
from tests.fixtures.program_files import program_command
from tests.stores.test_packs import chunks, publish


@pytest.fixture
def objects(s3: S3) -> RemoteObjects:
    found = open_objects(s3.place())
    assert isinstance(found, RemoteObjects)
    return found


def busy(objects: RemoteObjects, *, alone: bool) -> str:
    """What holds it; "": it is free."""
    try:
        with objects.lock(alone=alone, wait_s=0):
            return ""
    except TargetError as error:
        assert error.errno == errno.EBUSY
        return error.message


def test_many_together_or_one_alone(objects: RemoteObjects) -> None:
    with objects.lock(alone=False, wait_s=0), objects.lock(alone=False, wait_s=0):
        assert f"in use by a dump or another command (process {os.getpid()}" in busy(
            objects, alone=True
        )
        assert busy(objects, alone=False) == ""
    with objects.lock(alone=True, wait_s=0):
        assert "in use by gc or forget" in busy(objects, alone=False)
        assert "in use by gc or forget" in busy(objects, alone=True)
    assert busy(objects, alone=True) == "" and objects.locks() == []


def test_it_is_no_object_of_the_store(objects: RemoteObjects) -> None:
    with objects.lock(alone=True, wait_s=0):
        objects.put("x", b"data")
        assert [one.name for one in objects.names("")] == ["x"]
        assert [one.name for one in objects.names("", deep=False)] == ["x"]


def test_a_process_that_waits_gets_it(objects: RemoteObjects) -> None:
    got = threading.Event()

    def wait() -> None:
        with objects.lock(alone=True, wait_s=60):
            got.set()

    with objects.lock(alone=False, wait_s=0):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(1.5)
    assert got.wait(60)
    thread.join(60)


def test_of_many_that_want_it_alone_one_has_it_at_a_time(objects: RemoteObjects) -> None:
    inside, most, count = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, count
        with objects.lock(alone=True, wait_s=100):
            with guard:
                inside += 1
                most, count = max(most, inside), count + 1
            time.sleep(0.01)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert (most, count) == (1, 4)


@pytest.fixture
def holding(s3: S3) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock alone."""
    command = program_command(__file__, "lock_holder.py", s3.place())
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_lock_of_a_process_that_was_killed_is_free_on_its_host(
    objects: RemoteObjects, holding: subprocess.Popen[str]
) -> None:
    assert f"process {holding.pid}" in busy(objects, alone=False)
    holding.send_signal(signal.SIGKILL)
    holding.wait(60)
    assert busy(objects, alone=True) == "" and objects.locks() == []


class Place:
    """Locks in memory, with a server's clock."""

    url = "memory"

    def __init__(self) -> None:
        self.now = 1e9
        self.found: dict[str, tuple[bytes, float]] = {}
        self.down = False
        self.hangs = threading.Event()
        self.hangs.set()

    def put_lock(self, name: str, data: bytes) -> None:
        self.hangs.wait(300)
        if self.down:
            raise TargetError("down", errno=errno.EIO)
        self.found[name] = (data, self.now)

    def delete_locks(self, names: list[str]) -> None:
        for name in names:
            self.found.pop(name, None)

    def locks(self) -> list[Listed]:
        return [Listed(n, len(d), int(t * 1e9)) for n, (d, t) in self.found.items()]

    def get(self, name: str) -> bytes:
        if name not in self.found:
            raise TargetError("gone", errno=errno.ENOENT)
        return self.found[name][0]

    def elsewhere(self, how: str) -> str:
        """A lock of another host."""
        name = f"{FOLDER}{how}-0123456789abcdef"
        whose = {"host": "far", "boot": "other", "pid": 7, "begun": "1", "how": how}
        self.put_lock(name, json.dumps(whose).encode())
        return name


@pytest.mark.parametrize("how", ["alone", "shared"])
def test_the_lock_of_another_host_is_over_when_it_is_stale(how: str) -> None:
    place = Place()
    name = place.elsewhere(how)
    place.now += STALE_S - 1
    with pytest.raises(TargetError, match=r"\(process 7 on far\)"):
        leases.take_lease(place, alone=True, wait_s=0)
    assert list(place.found) == [name]
    place.now += 2
    with leases.take_lease(place, alone=True, wait_s=0) as mine:
        assert list(place.found) == [mine.name]
    assert place.found == {}


def test_clocks_of_hosts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    place.elsewhere("alone")
    monkeypatch.setattr(time, "time", lambda: 5e9)
    monkeypatch.setattr(time, "time_ns", lambda: int(5e18))
    with pytest.raises(TargetError, match="far"):
        leases.take_lease(place, alone=True, wait_s=0)


def test_a_lock_with_nonsense_in_it_counts_until_it_is_stale() -> None:
    place = Place()
    place.put_lock(f"{FOLDER}alone-x", b"\xff nonsense")
    with pytest.raises(TargetError, match="a process that is not known"):
        leases.take_lease(place, alone=False, wait_s=0)
    place.now += STALE_S + 1
    leases.take_lease(place, alone=False, wait_s=0).close()


def test_a_holder_that_could_not_renew_it_knows_so(monkeypatch: pytest.MonkeyPatch) -> None:
    place, clock = Place(), [100.0]
    monkeypatch.setattr(leases, "_clock", lambda: clock[0])
    with leases.take_lease(place, alone=True, wait_s=0) as mine:
        clock[0] += HELD_S - 1
        mine.expect_held()
        mine.write()
        clock[0] += HELD_S + 1
        with pytest.raises(TargetError, match="was lost") as caught:
            mine.expect_held()
        assert caught.value.errno == errno.ESTALE
        clock[0] -= HELD_S  # lost is lost
        assert not mine.is_held()


def test_nothing_is_written_or_removed_without_it(
    objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.put("x", b"data")
    clock = [100.0]
    monkeypatch.setattr(leases, "_clock", lambda: clock[0])
    with pytest.raises(TargetError, match="was lost"), objects.lock(alone=True, wait_s=0):
        clock[0] += HELD_S + 1
        for call in (lambda: objects.put("x", b"other"), lambda: objects.delete(["x"])):
            with pytest.raises(TargetError, match="was lost"):
                call()
    assert objects.get("x") == b"data"


def test_it_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    monkeypatch.setattr(leases, "_RENEW_S", 0.01)
    with leases.take_lease(place, alone=True, wait_s=0) as mine:
        place.now += 500
        deadline = time.monotonic() + 60
        while place.found[mine.name][1] != place.now:
            assert time.monotonic() < deadline, place.found
            time.sleep(0.01)


def test_the_longest_request_ends_before_others_take_the_lock() -> None:
    most, one_more = 300, 120
    assert most >= DEADLINE_S
    assert HELD_S + most + one_more + 60 < STALE_S


def test_a_holder_says_of_itself_whether_it_is_dead() -> None:
    place = Place()
    mine = leases.Lease(place, False)
    mine.write()
    ((data, _),) = place.found.values()
    found = json.loads(data)
    assert found["pid"] == os.getpid() and not Holder(**found).is_dead()
    assert Holder(**{**found, "begun": "1"}).is_dead()
    assert not Holder(**{**found, "begun": "1", "boot": "other"}).is_dead()
    assert Path(f"/proc/{found['pid']}").exists()


def test_a_process_that_cannot_be_seen_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc shows only the processes of the same user (hidepid, ProtectProc)."""
    mine = leases.Lease(Place(), False)
    mine.write()
    found = msgspec.json.decode(mine._data, type=Holder)

    def hidden(path: object) -> str:
        raise FileNotFoundError(path)

    def of_another(pid: int, number: int) -> None:
        raise PermissionError

    boot = leases._boot()
    monkeypatch.setattr(leases, "_boot", lambda: boot)
    monkeypatch.setattr(leases, "proc_text", hidden)
    assert not found.is_dead()
    monkeypatch.setattr(os, "kill", of_another)
    assert not found.is_dead()
    monkeypatch.undo()
    with subprocess.Popen(["true"]) as process:
        process.wait(60)
        there = msgspec.structs.replace(found, pid=process.pid, begun="1")
    assert there.is_dead() and not msgspec.structs.replace(there, given_up=True).is_dead()
    assert not msgspec.structs.replace(there, host="another").is_dead()
    monkeypatch.setattr(leases, "_computer", lambda: "restored from the same image")
    assert not there.is_dead()


def test_a_lock_that_another_took_for_over_is_lost(
    objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_RENEW_S", 0.01)
    with (
        pytest.raises(TargetError, match="another process took it"),
        objects.lock(alone=False, wait_s=0),
    ):
        deadline = time.monotonic() + 60
        while all(lease.is_held() for lease in objects._held()):
            assert time.monotonic() < deadline
            if names := [one.name for one in objects.locks()]:  # gone since the last round
                objects.delete_locks(names)
            time.sleep(0.1)
        assert objects.locks() == []


def test_what_was_written_after_another_took_the_lock_is_taken_back(
    objects: RemoteObjects,
) -> None:
    """An index: gc looks for it after it has removed the lock, its writer for the lock after it
    was written. Chunks may stay: they are garbage."""
    with pytest.raises(TargetError, match="was lost"), objects.lock(alone=False, wait_s=0):
        objects.delete_locks([one.name for one in objects.locks()])
        objects.put("folder/chunk", b"data")
        objects.put("dump.caibx", b"data")
    assert [one.name for one in objects.names("")] == ["folder/chunk"]


def test_its_own_index_goes_also_without_the_lock(
    objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump that stood still between the look at its lock and the request, and whose chunks gc
    has removed meanwhile."""
    every = chunks(2)
    with create_store(objects.url) as dump, open_store(objects.url) as gc:
        for identity, data in every.items():
            dump.chunks.put(identity, data)
        dump.chunks.flush()
        clock, put = [leases._clock()], RemoteObjects._put
        monkeypatch.setattr(leases, "_clock", lambda: clock[0])

        def stands_still(self: RemoteObjects, name: str, data: bytes) -> None:
            if name == "late.caibx":
                gc.chunks.delete(list(every))
                clock[0] += HELD_S + 1
            put(self, name, data)

        with pytest.raises(TargetError) as caught, dump.lock():
            assert all(dump.chunks.has(identity) for identity in every)
            monkeypatch.setattr(RemoteObjects, "_put", stands_still)
            publish(dump, "late", list(every))
        assert caught.value.errno == errno.ESTALE and gc.names() == []


@pytest.mark.parametrize("late", ["put", "delete"])
def test_the_lock_of_a_request_that_was_given_up_stays(
    late: str, objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may do it when gc is over, or another dump."""

    def given_up(self: RemoteObjects, *words: object) -> None:
        raise TargetError("no answer", errno=errno.ETIMEDOUT)

    calls = {"put": lambda: objects.put("x", b"data"), "delete": lambda: objects.delete(["x"])}
    with (
        pytest.raises(TargetError, match="no answer"),
        objects.lock(alone=False, wait_s=0),
        monkeypatch.context() as patch,
    ):
        patch.setattr(RemoteObjects, f"_{late}", given_up)
        calls[late]()
    assert "a request that the server may still have in hand, of a dump" in busy(
        objects, alone=True
    )
    assert busy(objects, alone=False) == ""


def test_a_chunk_that_comes_late_holds_nothing_up(
    objects: RemoteObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given_up(self: RemoteObjects, *words: object) -> None:
        raise TargetError("no answer", errno=errno.ETIMEDOUT)

    with (
        pytest.raises(TargetError, match="no answer"),
        objects.lock(alone=False, wait_s=0),
        monkeypatch.context() as patch,
    ):
        patch.setattr(RemoteObjects, "_put", given_up)
        objects.put("packs/x.pack", b"data")
    assert objects.locks() == []


def test_letting_go_does_not_wait_for_a_renewal_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the lock goes when the server answers again, not before: the renewal brings it back."""
    place = Place()
    monkeypatch.setattr(leases, "_RENEW_S", 0.01)
    monkeypatch.setattr(leases, "_PATIENCE_S", 0.2)
    mine = leases.take_lease(place, alone=True, wait_s=0)
    place.hangs.clear()
    time.sleep(0.1)
    mine.close()
    assert not place.hangs.is_set()
    place.hangs.set()
    mine._renewer.join(60)
    assert place.found == {}
