# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fleet dump is worth as a whole, and that its manifest says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.errors import InvalidDump, LivedumpError, TargetError, UsageError
from livedumpfs.fleet.keeping import expect_writable, list_manifests, read_manifest, write_manifest
from livedumpfs.fleet.landing import table_checksum
from livedumpfs.fleet.manifest import (
    LeftOut,
    Manifest,
    MemberRecord,
    Skew,
    Taken,
    decode,
    encode,
    judge_again,
    judge_fleet,
    skew_of,
)
from livedumpfs.fleet.offsets import ClockFacts, Offset
from livedumpfs.fleet.verifying import problems_of
from livedumpfs.stores import collect, create_store, open_store

MS = 1_000_000


def member(name: str = "a", **more: Any) -> MemberRecord:
    return MemberRecord(
        **{
            "name": name, "host": "/m/livedump", "computer": "pc", "worker": "tls://pc:1",
            "verdict": "consistent", "taken": Taken(instant_ns=10**18, pause_ns=MS),
            "offset": Offset(0, 0, 8), **more,
        }
    )  # fmt: skip


def at(name: str, ms: float, offset_ms: float = 0, error_ms: float = 0) -> MemberRecord:
    instant = 10**18 + int((ms + offset_ms) * MS)
    offset = Offset(int(offset_ms * MS), int(error_ms * MS), 8)
    return member(name, taken=Taken(instant_ns=instant, pause_ns=1), offset=offset)


def test_skew_is_by_the_reference_clock() -> None:
    """And its error is that of the two worst clocks."""
    members = [at("a", 0, 3000, 1), at("b", 4, -7, 2), at("c", 1, 0, 0.5)]
    assert skew_of(members) == Skew(4 * MS, 3 * MS)
    assert skew_of(members[:1]) is None
    assert skew_of([members[0], member("x", taken=None), member("y", offset=None)]) is None


@pytest.mark.parametrize(
    ("how", "members", "left_out", "verdict", "reason"),
    [
        ("barrier", [member(held=True)] * 2, [], "consistent", ""),
        ("barrier", [member(held=True), member("b", held=False)], [], "torn", "b did not stand"),
        ("barrier", [member(held=True), member("b", held=True, verdict="torn", reason="why")], [],
         "torn", "the dump of b is torn: why"),
        ("barrier", [member(held=False), member("b", held=True, verdict="incomplete")], [],
         "incomplete", "the dump of b is incomplete: unknown; a did not stand"),
        ("barrier", [member(held=True)], [LeftOut("c", "x")], "consistent", "without c"),
        ("clock", [at("a", 0), at("b", 9)], [], "consistent", ""),
        ("clock", [at("a", 0), at("b", 11)], [], "torn", "may be 11 ms apart, more than 10 ms"),
        ("clock", [at("a", 0, 0, 1), at("b", 9, 0, 1)], [], "torn", "may be 11 ms apart"),
        ("clock", [at("a", 0), member("b", offset=None)], [], "torn", "are not known"),
        ("clock", [at("a", 0)], [], "consistent", ""),
        ("clock", [at("a", 0), member("b", verdict="incomplete", reason="dead")], [],
         "incomplete", "the dump of b is incomplete: dead"),
    ],
)  # fmt: skip
def test_the_verdict(how: Any, members: Any, left_out: Any, verdict: str, reason: str) -> None:
    found, why = judge_fleet(how, members, left_out, 10 * MS)
    assert found == verdict
    assert (why is None) == (not reason) and reason in (why or "")


def manifest(fleet: str = "f", **more: Any) -> Manifest:
    whole = {"id": fleet, "how": "barrier", "one_instant": True, "verdict": "consistent"}
    return Manifest(**{**whole, "members": (member(clock=ClockFacts(True, 1, 2)),), **more})


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    for fleet in ("b", "a"):
        name = write_manifest(str(tmp_path / "new"), manifest(fleet, skew=Skew(1, 2)))
        assert read_manifest(name) == manifest(fleet, skew=Skew(1, 2))
    (tmp_path / "new" / "c.fleet.json").write_text("{}")
    found = list(list_manifests(str(tmp_path / "new")))
    assert [isinstance(one, LivedumpError) for _, one in found] == [False, False, True]
    assert [one.id for _, one in found if isinstance(one, Manifest)] == ["a", "b"]


@pytest.mark.parametrize(
    ("how", "changed", "verdict"),
    [
        ("barrier", {"held": True}, "consistent"),
        ("barrier", {"held": False}, "torn"),
        ("barrier", {"held": True, "verdict": "incomplete"}, "incomplete"),
        ("clock", {"verdict": "torn"}, "torn"),
    ],
)
def test_it_is_worth_no_more_than_its_members(how: Any, changed: Any, verdict: str) -> None:
    """Whatever it says itself; what it says may be worse."""
    found = judge_again(manifest(how=how, members=(member(**changed),)))
    assert found.verdict == verdict and (found.reason is None) == (verdict == "consistent")
    assert found.one_instant is bool(changed.get("held"))
    worse = manifest(verdict="incomplete", reason="x", members=(member(held=True),))
    assert judge_again(worse) == worse


def test_a_skew_that_is_too_much_stays_so() -> None:
    apart = manifest(how="clock", most_skew_ns=10 * MS, members=(at("a", 0), at("b", 11)))
    assert judge_again(apart).verdict == "torn"


def test_dumps_that_are_not_those_of_the_manifest(tmp_path: Path) -> None:
    """There is none; it is another; it is worth less."""
    path = str(tmp_path / "a.vmcore")
    with Arena(64 << 10) as arena, LiveDump(arena) as live:
        live.save(path)
    with open_dump(path) as dump:
        known = {
            "dump": path, "dump_id": dump.dump_id.hex(), "checksum": table_checksum(dump),
            "held": True,
        }  # fmt: skip
    assert list(problems_of(manifest(members=(member(**known),)))) == []
    for wrong, said in (
        ({"dump": path + "x"}, "No such file"),
        ({"dump_id": "00"}, "the dump id of"),
        ({"verdict": "torn"}, "the verdict of"),
        ({"checksum": "table-sha256:0"}, "the checksum of"),
    ):
        (problem,) = problems_of(manifest(members=(member(**{**known, **wrong}),)))
        assert problem.startswith("a: ") and said in problem


def test_one_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TargetError):
        write_manifest(str(tmp_path / "file"), manifest())
    with pytest.raises(TargetError):
        read_manifest(str(tmp_path / "none.fleet.json"))
    with pytest.raises(InvalidDump, match="is of version 2, this livedumpfs reads 1"):
        decode(encode(manifest(version=2)), "it")


@settings(max_examples=300)
@given(some.binary(max_size=200), some.integers(0, 2000))
def test_hostile_ones(data: bytes, at: int) -> None:
    """A sentence, or a manifest."""
    good = encode(manifest())
    for text in (data, good[: at % len(good)] + data + good[at % len(good) :], b"[" * at):
        try:
            decode(text, "it")
        except InvalidDump as error:
            assert "it " in str(error)


def test_one_in_a_store_is_no_dump_of_it(tmp_path: Path) -> None:
    """Neither for its list nor for gc, which removes records that have no dump."""
    url = f"store:{tmp_path / 'store'}"
    with create_store(url) as store:
        name = write_manifest(url, manifest("f119"))
        assert store.names() == []
        collect(store)
    assert name == f"{url}#f119" and read_manifest(name) == manifest("f119")
    assert [one for one, _ in list_manifests(url)] == [name]


def test_one_in_an_encrypted_store_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"store:{tmp_path / 'store'}"
    identity = pyrage.x25519.Identity.generate()
    file = tmp_path / "identity"
    file.write_text(f"{identity}\n")
    create_store(url, recipients=[str(identity.to_public())]).close()
    with pytest.raises(UsageError, match="it is encrypted, and no identity is named"):
        expect_writable(url)
    monkeypatch.setenv("LIVEDUMP_IDENTITY", str(file))
    expect_writable(url)
    names = [write_manifest(url, manifest(fleet)) for fleet in ("f1", "f2")]
    found = tmp_path / "store" / "f1.fleet.json"
    assert b"consistent" not in found.read_bytes()
    assert [one for one, _ in list_manifests(url)] == names
    assert read_manifest(names[0]) == manifest("f1")
    found.write_bytes((tmp_path / "store" / "f2.fleet.json").read_bytes())
    with pytest.raises(InvalidDump, match=r"f1 is damaged: .* in the place of another"):
        read_manifest(names[0])
    found.write_bytes(encode(manifest("f1")))
    with pytest.raises(InvalidDump, match="f1 is damaged: it was changed"):
        read_manifest(names[0])
    with open_store(url) as store:
        assert store.names() == [] and collect(store).records == 0
    monkeypatch.delenv("LIVEDUMP_IDENTITY")
    with pytest.raises(UsageError, match="no identity is named"):
        list(list_manifests(url))


def test_a_place_that_takes_no_manifest_is_known_before(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="No such file"):
        expect_writable(f"store:{tmp_path / 'none'}")
    expect_writable(str(tmp_path / "a folder, which is made"))
