# SPDX-License-Identifier: GPL-2.0-or-later
"""Encrypted stores: what is in them is read with the identity alone, and nothing takes another's
place."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest

from livedumpfs.errors import InvalidDump, LivedumpError, TargetError, UsageError
from livedumpfs.stores import Store, collect, create_store, open_store, pack_writer
from livedumpfs.stores.chunk import chunk_id
from livedumpfs.stores.seal import KEY_SIZE, Seal
from livedumpfs.stores.store_key import ENCRYPTION
from tests.stores.test_packs import SIZE, chunks, publish

Keys = tuple[str, str]
"""The recipient, and the file with its identity."""


def make_keys(folder: Path, name: str) -> Keys:
    identity = pyrage.x25519.Identity.generate()
    path = folder / name
    path.write_text(f"# public key: {identity.to_public()}\n{identity}\n")
    return str(identity.to_public()), str(path)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path, "identity.txt")


@pytest.fixture
def place(tmp_path: Path, keys: Keys) -> str:
    """Of a store with two dumps."""
    url = str(tmp_path / "store")
    with create_store(url, recipients=[keys[0]]) as store:
        for seed in (1, 2):
            every = chunks(20, seed)
            for identity, data in every.items():
                store.chunks.put(identity, data)
            publish(store, f"dump{seed}", list(every))
    return url


def names_of(place: str) -> list[Path]:
    return [path for path in sorted(Path(place).rglob("*")) if path.is_file()]


def test_it_reads_as_any_other(place: str, keys: Keys) -> None:
    with open_store(place, identity=keys[1]) as store:
        assert (store.about.layout, store.about.encryption) == ("packs", ENCRYPTION)
        assert store.names() == ["dump1", "dump2"]
        for seed in (1, 2):
            every = chunks(20, seed)
            assert [store.index(f"dump{seed}").id(n) for n in range(20)] == list(every)
            assert [store.chunks.get(one) for one in every] == list(every.values())
        store.remove("dump1")
        assert collect(store).chunks == 20
        assert store.record("dump2") is not None


def test_nothing_of_its_content_can_be_seen(place: str, keys: Keys) -> None:
    """Neither bytes of chunks, nor their ids, nor the key; also not in names."""
    every = {**chunks(20, 1), **chunks(20, 2)}
    with open_store(place, identity=keys[1]) as store:
        assert store.chunks.has(next(iter(every)))
    marks = [*every, *(data[:16] for data in every.values()), b"dump_id", b"consistent"]
    marks += [one.hex().encode() for one in every]
    for path in names_of(place):
        whole = path.read_bytes() + str(path).encode()
        assert not any(mark in whole for mark in marks), path


def test_equal_texts_are_not_equal_when_sealed() -> None:
    seal = Seal(os.urandom(KEY_SIZE))
    assert seal.close(b"text", b"what") != seal.close(b"text", b"what")
    assert seal.open(seal.close(b"text", b"what"), b"what") == b"text"
    for wrong in (b"", b"x" * 11, b"x" * 12, b"x" * 40):
        with pytest.raises(InvalidDump):
            seal.open(wrong, b"what")
    with pytest.raises(InvalidDump):
        seal.open(seal.close(b"text", b"what"), b"other")
    with pytest.raises(InvalidDump):
        Seal(os.urandom(KEY_SIZE)).open(seal.close(b"text", b"what"), b"what")


def sentence(place: str, identity: str | None) -> str:
    with pytest.raises(LivedumpError) as caught:
        open_store(place, identity=identity)
    text = str(caught.value)
    assert "\n" not in text and "AGE-SECRET" not in text
    return text


def test_without_the_identity(
    place: str, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIVEDUMP_IDENTITY", raising=False)
    assert "it is encrypted, and no identity is named (an option, or LIVE" in sentence(place, None)
    other = make_keys(tmp_path, "other.txt")[1]
    assert sentence(place, other).endswith(f"the identity in {other} does not open it")
    assert "cannot read the identity in /nowhere: No such file" in sentence(place, "/nowhere")
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"\xff\xfe nonsense AGE-SECRET-KEY-1")
    assert f"{nonsense} is no file of age identities" in sentence(place, str(nonsense))
    nonsense.write_bytes(b"# nothing\n\n")
    assert f"{nonsense} has no identity in it" in sentence(place, str(nonsense))
    monkeypatch.setenv("LIVEDUMP_IDENTITY", keys[1])
    open_store(place).close()


def test_a_key_that_is_damaged_or_gone(place: str, keys: Keys) -> None:
    key = Path(place, "key")
    good = key.read_bytes()
    for wrong in (good[:-1], good[:-3] + b"\0\0\0", b"nonsense"):
        key.write_bytes(wrong)
        assert "its object key is damaged" in sentence(place, keys[1])
    key.write_bytes(pyrage.encrypt(b"short", [pyrage.x25519.Recipient.from_str(keys[0])]))
    assert "its object key is none of livedumpfs" in sentence(place, keys[1])
    key.unlink()
    assert "its object key is missing" in sentence(place, keys[1])


def test_a_store_with_another_key_in_its_place(place: str, tmp_path: Path, keys: Keys) -> None:
    with create_store(str(tmp_path / "second"), recipients=[keys[0]]):
        pass
    shutil.copy(tmp_path / "second" / "key", Path(place, "key"))
    assert "livedumpfs.sealed is damaged: it was changed" in sentence(place, keys[1])
    shutil.copy(tmp_path / "second" / "livedumpfs.sealed", Path(place, "livedumpfs.sealed"))
    with open_store(place, identity=keys[1]) as store:
        with pytest.raises(InvalidDump, match=r"dump1.caibx is damaged: it was changed"):
            store.index("dump1")
        with pytest.raises(TargetError, match=r"has no chunk .*it was changed"):
            store.chunks.get(bytes(32))


def test_objects_that_were_exchanged(place: str, keys: Keys) -> None:
    """An old index under a new name, and one pack in the place of another."""
    shutil.copy(Path(place, "dump1.caibx"), Path(place, "dump3.caibx"))
    shutil.copy(Path(place, "dump1.json"), Path(place, "dump2.json"))
    one, two = sorted(Path(place, "packs").glob("*.pack"))
    kept = one.read_bytes()
    shutil.copy(two, one)
    two.write_bytes(kept)
    with open_store(place, identity=keys[1]) as store:
        with pytest.raises(InvalidDump, match=r"dump3.caibx is damaged: .* the place of another"):
            store.index("dump3")
        with pytest.raises(InvalidDump, match="the place of another"):
            store.record("dump2")
        for identity in {**chunks(20, 1), **chunks(20, 2)}:
            with pytest.raises(InvalidDump, match=f"chunk {identity.hex()} in .* is damaged"):
                store.chunks.get(identity)


def test_every_change_of_a_byte_is_seen(place: str, keys: Keys) -> None:
    source = random.Random(1)
    for path in [path for path in names_of(place) if path.name not in ("lock", "livedumpfs.json")]:
        good = path.read_bytes()
        wrong = bytearray(good)
        wrong[source.randrange(len(wrong))] ^= 1 << source.randrange(8)
        path.write_bytes(wrong)
        assert not whole(place, keys[1]), path
        path.write_bytes(good)
    assert whole(place, keys[1])


def whole(place: str, identity: str) -> bool:
    try:
        with open_store(place, identity=identity) as store:
            for seed in (1, 2):
                store.record(f"dump{seed}")
                index = store.index(f"dump{seed}")
                for number in range(len(index)):
                    store.chunks.get(index.id(number))
    except LivedumpError as error:
        assert "\n" not in str(error)
        return False
    return True


def test_recipients(tmp_path: Path, keys: Keys) -> None:
    other = make_keys(tmp_path, "other.txt")
    listed = tmp_path / "recipients"
    listed.write_text(f"# both\n{keys[0]}\n{other[0]}\n")
    create_store(str(tmp_path / "s"), recipients=[str(listed)]).close()
    for _, identity in (keys, other):
        open_store(str(tmp_path / "s"), identity=identity).close()
    secret = Path(keys[1]).read_text().split()[-1]
    for wrong, why in (
        ("age1nonsense", "is no recipient of age"),
        (str(tmp_path / "none"), "cannot read recipients in"),
        (keys[1], "is an identity, not a recipient"),
    ):
        with pytest.raises(LivedumpError, match=why) as caught:
            create_store(str(tmp_path / "t"), recipients=[wrong])
        assert secret not in str(caught.value)
        assert not (tmp_path / "t").exists()
    with pytest.raises(UsageError, match="cannot have the layout castr"):
        create_store(str(tmp_path / "t"), recipients=[keys[0]], layout="castr")


@pytest.mark.parametrize("as_is", [True, False])
def test_a_key_in_place_of_its_file_is_not_shown(
    as_is: bool, place: str, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = Path(keys[1]).read_text().split()[-1]
    secret = secret if as_is else f" {secret.lower()}"
    monkeypatch.setenv("LIVEDUMP_IDENTITY", secret)
    with pytest.raises(UsageError, match="recipient is a private key itself") as caught:
        create_store(str(tmp_path / "t"), recipients=[secret])
    for said in (sentence(place, None), sentence(place, secret), str(caught.value)):
        assert "is a private key itself, not the name of its file" in said
        assert secret.strip().upper() not in said.upper()


def test_an_ssh_key_opens_it(tmp_path: Path) -> None:
    key = tmp_path / "id"
    if not shutil.which("ssh-keygen"):
        pytest.skip("no ssh-keygen")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True, timeout=60)
    create_store(str(tmp_path / "s"), recipients=[f"{key}.pub"]).close()
    open_store(str(tmp_path / "s"), identity=str(key)).close()


def test_what_is_encrypted_otherwise_is_refused(place: str, keys: Keys) -> None:
    about = Path(place, "livedumpfs.json")
    about.write_text(about.read_text().replace(ENCRYPTION, "rot13"))
    assert "it is encrypted by 'rot13': a newer livedumpfs is needed" in sentence(place, keys[1])


def test_chunks_that_are_equal_are_kept_once(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_writer, "PACK_SIZE", 1 << 20)

    def put(store: Store) -> list[int]:
        every = [bytes([n]) * SIZE for n in range(10)]
        return [store.chunks.put(chunk_id(data), data) for data in every]

    with create_store(str(tmp_path / "s"), recipients=[keys[0]]) as store:
        assert all(put(store))
        store.chunks.flush()
    with open_store(str(tmp_path / "s"), identity=keys[1]) as store:
        assert not any(put(store))
