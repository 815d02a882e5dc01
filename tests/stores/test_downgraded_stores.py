# SPDX-License-Identifier: GPL-2.0-or-later
"""An encrypted store takes no dump in the clear, whatever another writes into it, and where an
identity is named nothing else takes its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from livedumpfs.cli.main import main
from livedumpfs.errors import InvalidDump, LivedumpError, UsageError
from livedumpfs.stores import create_store, open_store
from livedumpfs.stores.receive import store_for_dump

Keys = tuple[str, str]
"""The recipient, and the file with its identity."""


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "id").write_text(f"{identity}\n")
    return str(identity.to_public()), str(tmp_path / "id")


@pytest.fixture
def place(tmp_path: Path, keys: Keys) -> Path:
    """Of an encrypted store."""
    create_store(str(tmp_path / "store"), recipients=[keys[0]]).close()
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """main() sets them."""
    for name in ("LIVEDUMP_IDENTITY", "LIVEDUMP_ENCRYPTED"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def edit(place: Path, **values: object) -> None:
    about = place / "livedumpfs.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"layout": "castr"}, "it says that it is encrypted, with the layout castr"),
        ({"encryption": ""}, "it says that it is not encrypted, and has a key"),
        ({"encryption": "", "layout": "castr"}, "it says that it is not encrypted, and has a key"),
        ({"chunk_size": 1 << 20}, "its livedumpfs.json was changed"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_no_edit_makes_it_a_plain_one(
    place: Path,
    keys: Keys,
    values: dict[str, object],
    why: str,
    named: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edit(place, **values)
    monkeypatch.setenv("LIVEDUMP_IDENTITY", keys[1])
    with pytest.raises(InvalidDump, match=why):
        open_store(str(place), identity=keys[1] if named else None)


def test_its_sealed_copy_cannot_be_missing_or_of_another(
    place: Path, keys: Keys, tmp_path: Path
) -> None:
    sealed = place / "livedumpfs.sealed"
    create_store(str(tmp_path / "other"), recipients=[keys[0]]).close()
    sealed.write_bytes((tmp_path / "other" / "livedumpfs.sealed").read_bytes())
    with pytest.raises(InvalidDump, match="sealed is damaged: it was changed"):
        open_store(str(place), identity=keys[1])
    sealed.unlink()
    with pytest.raises(InvalidDump, match=r"its object livedumpfs\.sealed is missing"):
        open_store(str(place), identity=keys[1])


def without_a_store(place: Path) -> None:
    """The disk is not mounted."""
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def with_a_plain_one(place: Path) -> None:
    without_a_store(place)
    create_store(str(place)).close()


@pytest.mark.parametrize("change", [without_a_store, with_a_plain_one])
def test_a_named_identity_makes_and_opens_no_plain_store(
    place: Path,
    keys: Keys,
    change: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(place)
    before = sorted(place.rglob("*"))
    with pytest.raises(LivedumpError):
        open_store(str(place), identity=keys[1])
    assert main(["list", str(place), "--identity", keys[1]]) != 0
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UsageError, match="an identity is named"):
        store_for_dump(f"store:{place}")  # as `dump` does after such a command line
    assert sorted(place.rglob("*")) == before
    monkeypatch.delenv("LIVEDUMP_ENCRYPTED")  # the variable alone may be for other stores
    store_for_dump(f"store:{place}")[0].close()


def test_a_store_whose_making_was_killed_can_be_made(tmp_path: Path, keys: Keys) -> None:
    for left in (["key"], ["key", "livedumpfs.sealed"]):
        for recipients in ([keys[0]], []):
            place = tmp_path / f"{len(left)}{len(recipients)}"
            place.mkdir()
            for name in left:
                (place / name).write_bytes(b"old")
            create_store(str(place), recipients=recipients).close()
            open_store(str(place), identity=keys[1] if recipients else None).close()
    (place / "livedumpfs.json").unlink()
    (place / "a.caibx").write_bytes(b"x")
    with pytest.raises(LivedumpError, match="it is not empty"):
        create_store(str(place))
