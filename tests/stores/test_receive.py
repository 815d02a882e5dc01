# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes by a pipe is a whole dump, or nothing of it is in the store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from livedumpfs.cli.main import main
from livedumpfs.dumpfile import verify_store
from livedumpfs.errors import InvalidDump, MachineError, TargetError
from livedumpfs.formats import Plan
from livedumpfs.stores import Store, create_store, open_store
from livedumpfs.stores.about import ABOUT
from livedumpfs.stores.base_image import load_base
from livedumpfs.stores.chunk import DIGESTS, Digest
from livedumpfs.stores.receive import Published, receive
from livedumpfs.stores.receiver import Receiver
from tests.fixtures.open_files import no_file_stays_open
from tests.fixtures.store_streams import flattened, image_of, nothing_published, records_of
from tests.stores.stored_dumps import CHANGED, CHUNK, MACHINE, MEMORY, OTHER, PAGE

Capture = pytest.CaptureFixture[str]
WriteDump = Callable[..., Plan]
DEADLINE = 120.0


@pytest.fixture
def dump(tmp_path: Path, write_dump: WriteDump) -> Path:
    meta = {"instant": {"wall_ns": 1_795_966_440_123_456_789, "mono_ns": 1}}
    write_dump(tmp_path / "dump", MEMORY, granule=CHUNK, machine=MACHINE, meta=meta)
    return tmp_path / "dump"


@contextmanager
def pipe_of(data: bytes) -> Iterator[int]:
    """The reading end of a pipe through which these bytes come."""
    ours, theirs = os.pipe()

    def write() -> None:
        left = memoryview(data)
        with contextlib.suppress(BrokenPipeError):
            while left:
                left = left[os.write(theirs, left) :]
        os.close(theirs)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield ours
    finally:
        os.close(ours)
        thread.join(DEADLINE)
        assert not thread.is_alive()


def received(data: bytes, store: Store, since: str = "") -> Published:
    with pipe_of(data) as pipe:
        return receive(pipe, store, since=since)


def test_a_dump_and_its_record(store: Store, dump: Path) -> None:
    records = records_of(dump, CHUNK)
    done = received(flattened(records), store)
    assert store.names() == [done.name] and done.name.startswith("20261129T153400Z-")
    assert image_of(store, done.name) == dump.read_bytes()
    record = store.record(done.name)
    assert record == done.record
    assert (record.verdict, record.machine) == ("consistent", "test")
    assert (record.image_size, record.memory_size) == (dump.stat().st_size, len(MEMORY))
    assert (record.instant_ns, record.since) == (1_795_966_440_123_456_789, "")
    assert record.new_chunks == len({*store.chunks.every()})


def test_an_increment(store: Store, dump: Path, tmp_path: Path, write_dump: WriteDump) -> None:
    base = received(flattened(records_of(dump, CHUNK)), store).name
    write_dump(tmp_path / "other", OTHER, granule=CHUNK, machine=MACHINE)
    records = records_of(tmp_path / "other", CHUNK)
    first = records[3][0]
    changed = {first + page * PAGE // CHUNK * CHUNK for page in CHANGED}
    some = [one for one in records if one[0] < first or one[0] in changed]
    done = received(flattened(some), store, since=base)
    assert image_of(store, done.name) == (tmp_path / "other").read_bytes()
    base_record = store.record(base)
    assert base_record and done.record.since == base_record.dump_id and done.taken
    with pytest.raises(InvalidDump, match="did not come"):
        received(flattened(some[:-1]), store, since=base)


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_store_names_its_chunks_by_the_hash_that_it_says(
    tmp_path: Path, dump: Path, digest: Digest
) -> None:
    place = tmp_path / "other"
    with create_store(str(place), digest=digest) as store:
        name = received(flattened(records_of(dump, CHUNK)), store).name
        index = store.index(name)
        assert index.digest == digest
        assert index.id(len(index) - 1) == hashlib.new(digest, dump.read_bytes()[-CHUNK:]).digest()
        assert image_of(store, name) == dump.read_bytes()
    assert verify_store(open_store(str(place))).problems == []


def test_a_store_that_is_older_than_the_choice(tmp_path: Path, dump: Path) -> None:
    """It does not say its hash, and keeps it. A dump by another one is no base in it."""
    place = tmp_path / "old"
    with create_store(str(place), digest="sha512_256") as store:
        received(flattened(records_of(dump, CHUNK)), store)
    said = json.loads((place / ABOUT).read_text())
    del said["digest"]
    (place / ABOUT).write_text(json.dumps(said))
    with open_store(str(place)) as store:
        index = store.index(store.names()[0])
        assert store.about.digest == index.digest == "sha512_256"
        store.remove(store.names()[0])
        assert received(flattened(records_of(dump, CHUNK)), store).record.new_chunks == 0
        store.objects.put("other.caibx", replace(index, digest="sha256").pack())
        with pytest.raises(InvalidDump, match="names its chunks by another hash"):
            load_base(store, "other")


def test_what_is_not_whole(store: Store, dump: Path) -> None:
    good = flattened(records_of(dump, CHUNK))
    for cut in (0, 100, 4096, 4100, 5000, len(good) // 2, len(good) - 16, len(good) - 1):
        with (
            no_file_stays_open(),
            open_store(store.url) as again,
            pytest.raises(InvalidDump, match="was broken off"),
        ):
            received(good[:cut], again)
        assert nothing_published(store)


def test_what_is_no_dump(store: Store, dump: Path) -> None:
    good = flattened(records_of(dump, CHUNK))
    head = good[:4096]
    for data, why in (
        (bytes(8192), "no dump in makedumpfile"),
        (dump.read_bytes(), "no dump in makedumpfile"),
        (b"makedumpfile".ljust(24, b"\0") + bytes(8192), "no dump in makedumpfile"),
        (head + struct.pack(">qq", -1, 5), "impossible place or length"),
        (head + struct.pack(">qq", 5, -1), "impossible place or length"),
        (head + struct.pack(">qq", 1 << 62, 1), "impossible place or length"),
        (head + struct.pack(">qq", 1 << 61, 8) + bytes(8), "impossible order"),
        (head + struct.pack(">qq", -1, -1), "has no superblock"),
    ):
        with pytest.raises(InvalidDump, match=why):
            received(data, store)
        assert nothing_published(store)


def test_convert_makes_a_file_of_it(dump: Path, tmp_path: Path, capsys: Capture) -> None:
    """Of the format that it is."""
    flat, made = tmp_path / "flat", tmp_path / "made"
    flat.write_bytes(flattened(records_of(dump, CHUNK)))
    assert main(["convert", str(flat), str(made), "--format", "kdump"]) == 2
    assert "is a dump of format elf in makedumpfile's flattened form" in capsys.readouterr().err
    assert not made.exists()
    assert main(["convert", str(flat), str(made), "--format", "elf"]) == 0
    assert made.read_bytes() == dump.read_bytes()


def test_the_same_dump_twice(store: Store, dump: Path) -> None:
    """It has one name."""
    good = flattened(records_of(dump, CHUNK))
    name = received(good, store).name
    with pytest.raises(TargetError, match=r"has a dump .* already"):
        received(good, store)
    assert store.names() == [name]


def test_two_at_once(store: Store, dump: Path, tmp_path: Path, write_dump: WriteDump) -> None:
    write_dump(tmp_path / "other", OTHER, granule=CHUNK, machine=MACHINE)
    paths = [dump, tmp_path / "other"] * 2
    failed: list[BaseException] = []

    def work(path: Path) -> None:
        try:
            with open_store(store.url) as own:
                received(flattened(records_of(path, CHUNK)), own)
        except TargetError:
            pass  # the same dump twice
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert not failed
    images = {image_of(store, name) for name in store.names()}
    assert images == {path.read_bytes() for path in paths}


# ---------------------------------------------------- in a process of its own


def test_a_receiver(tmp_path: Path, dump: Path) -> None:
    place = str(tmp_path / "made")
    with Receiver(place) as receiver:
        assert receiver.chunk_size == CHUNK
        end, receiver.write_end = receiver.write_end, -1
        with os.fdopen(end, "wb") as file:
            file.write(flattened(records_of(dump, CHUNK)))
        published = receiver.finish()
    with open_store(place) as store:
        assert store.record(published.name) == published.record
        assert image_of(store, published.name) == dump.read_bytes()


def test_a_receiver_says_why_not(tmp_path: Path) -> None:
    with no_file_stays_open():
        with pytest.raises(TargetError, match=r"cannot make the store .*: No such file") as caught:
            Receiver(str(tmp_path / "no" / "where"))
        assert caught.value.errno == 2
        with Receiver(str(tmp_path / "made")) as receiver:
            receiver.close()
            with pytest.raises(ValueError):  # its answers are closed
                receiver.finish()
        with Receiver(str(tmp_path / "made")) as receiver:
            os.close(receiver.write_end)
            receiver.write_end = -1
            with pytest.raises(InvalidDump, match="was broken off"):
                receiver.finish()


def test_a_receiver_that_is_killed(tmp_path: Path) -> None:
    with Receiver(str(tmp_path / "made")) as receiver:
        receiver._process.kill()
        with pytest.raises(MachineError, match="has ended before its time"):
            receiver.finish()
