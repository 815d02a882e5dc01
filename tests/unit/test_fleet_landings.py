# SPDX-License-Identifier: GPL-2.0-or-later
"""What a worker says of a dump that goes into a store: that it is there exactly where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyrage
import pytest

from livedumpfs.dumpfile import open_dump, verify_store
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.fleet.landing import StoreLanding, chunks_checksum, open_landing
from livedumpfs.formats import Plan
from livedumpfs.stores import DumpRecord, Index, Store, create_store, open_store
from livedumpfs.stores.receive import Published
from tests.fixtures.store_streams import flattened, image_of, records_of
from tests.stores.stored_dumps import CHUNK, MACHINE, MEMORY

RECORD = DumpRecord(dump_id="00" * 16, verdict="consistent")


@pytest.fixture
def landing(tmp_path: Path) -> Iterator[StoreLanding]:
    create_store(str(tmp_path / "store")).close()
    found = StoreLanding(f"store:{tmp_path / 'store'}")
    yield found
    found.give_up()


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_dump_that_was_published_has_arrived(
    is_readable: bool, landing: StoreLanding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its index cannot be read back: it would be called incomplete, and be there."""
    monkeypatch.setattr(
        landing._reception, "finish", lambda seconds: Published("vm1", RECORD, 0, 0)
    )

    def index(self: Store, name: str) -> Any:
        if not is_readable:
            raise TargetError("cannot read it")
        return Index.fixed(0, 1 << 16, np.empty((0, 32), np.uint8))

    monkeypatch.setattr(Store, "index", index)
    found = landing.finish(bytes(16))
    assert found.dump.endswith("/store#vm1") and found.verdict == "consistent"
    assert (found.checksum is not None) == is_readable
    with pytest.raises(InvalidDump, match=f"is dump {'00' * 16}, and not {'01' * 16}"):
        landing.finish(b"\1" * 16)


def test_one_that_may_still_come_is_said_to(
    landing: StoreLanding, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(seconds: float) -> Published:
        raise TimeoutError

    monkeypatch.setattr(landing._reception, "finish", late)
    with pytest.raises(TargetError, match="did not take the dump within 60 s; it may still"):
        landing.finish(bytes(16))


def test_one_into_an_encrypted_store(
    tmp_path: Path, write_dump: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a checksum there, and the record says whose dump it is."""
    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(str(key))
    monkeypatch.setenv("LIVEDUMP_IDENTITY", str(tmp_path / "key"))
    place = str(tmp_path / "sealed")
    create_store(place, recipients=[str(key.to_public())]).close()
    write_dump(tmp_path / "dump", MEMORY, granule=CHUNK, machine=MACHINE)
    with open_dump(tmp_path / "dump") as dump:
        dump_id = dump.dump_id
    landing = open_landing(f"store:{place}", "x", "elf", "/mnt/host")
    try:
        with open(landing.path, "wb") as pipe:
            pipe.write(flattened(records_of(tmp_path / "dump", CHUNK)))
            landing.handed_over()
        found = landing.finish(dump_id)
    finally:
        landing.give_up()
    name = found.dump.partition("#")[2]
    with open_store(place) as store:
        assert found.checksum == chunks_checksum(store, name)
        record = store.record(name)
        assert record and record.identity == "/mnt/host"
        assert verify_store(store).problems == []
        assert image_of(store, name) == (tmp_path / "dump").read_bytes()
