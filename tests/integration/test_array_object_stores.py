# SPDX-License-Identifier: GPL-2.0-or-later
"""Arrays in an object store: a real S3 server on loopback, which can be told to fail."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import obstore
import pytest

from livedumpfs import Arena, DumpSettings, LiveDump, open_arrays
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.named import nodes
from livedumpfs.named.local_group import MARK
from livedumpfs.named.saving import ArraySave
from tests.fixtures.array_kinds import CHUNK, contents, fill

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL of s3://, whose bucket is new."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIAKEY", "AWS_SECRET_ACCESS_KEY": "verysecret",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    asked = urllib.request.Request(f"{moto}/moto-api/reset", method="POST")
    urllib.request.urlopen(asked, timeout=300).close()
    asked = urllib.request.Request(f"{moto}/bucket", method="PUT")
    urllib.request.urlopen(asked, timeout=300).close()
    return "s3://bucket/some/where"


def names(url: str) -> set[str]:
    return {one["path"] for page in obstore.store.from_url(url).list() for one in page}


@pytest.mark.parametrize("name", ["state.zarr", "state.icechunk"])
def test_arrays_of_all_kinds_come_back(bucket: str, name: str) -> None:
    with Arena("16MiB") as arena:
        before = fill(arena)
        assert LiveDump(arena).save(f"{bucket}/{name}") == "consistent"
    with Arena.load(f"{bucket}/{name}") as again:
        assert contents(again) == before
    assert not {one for one in names(bucket) if MARK in one}


def test_other_libraries_open_it(bucket: str) -> None:
    import xarray
    import zarr

    url = f"{bucket}/state.zarr"
    with Arena("8MiB") as arena:
        a = arena.array("f4", (20, 30), name="a", dims=("y", "x"))
        a[:] = np.random.default_rng(1).standard_normal(a.shape)
        LiveDump(arena).save(url)
        store = zarr.storage.ObjectStore(obstore.store.from_url(url), read_only=True)
        with xarray.open_zarr(store, consolidated=False) as data:
            assert (data["a"].values == a).all() and data["a"].dims == ("y", "x")


def test_a_whole_group_is_not_replaced_without_force(bucket: str) -> None:
    url = f"{bucket}/state.zarr"
    with Arena("8MiB") as arena:
        a = arena.array("u1", (MIB,), name="a")
        a[:] = 3
        LiveDump(arena).save(url)
        a[:] = 4
        with pytest.raises(TargetError, match=r"cannot replace one at once .*\.icechunk"):
            LiveDump(arena).save(url)
        with Arena.load(url) as again:
            assert (again.arrays["a"] == 3).all()
        LiveDump(arena).save(url, DumpSettings(force=True))
        with Arena.load(url) as again:
            assert (again.arrays["a"] == 4).all()


def test_other_objects_are_kept(bucket: str) -> None:
    url = f"{bucket}/state.zarr"
    obstore.store.from_url(url).put("letter", b"keep me")
    with Arena("8MiB") as arena:
        arena.array("u1", (MIB,), name="a")[:] = 3
        with pytest.raises(TargetError, match="has objects, and is no Zarr group"):
            LiveDump(arena).save(url)
    assert names(url) == {"letter"}


def test_one_that_was_broken_off(bucket: str) -> None:
    url = f"{bucket}/state.zarr"
    with Arena("8MiB") as arena:
        arena.array("u1", (MIB,), name="a")[:] = 3
        save = ArraySave(url, arena.named)
        save.begin()  # and killed
        assert names(url) == {MARK, "a/zarr.json"}
        with pytest.raises(InvalidDump, match="it is incomplete: its save was broken off"):
            open_arrays(url)
        assert LiveDump(arena).save(url) == "consistent"
        assert MARK not in names(url)
        with Arena.load(url) as again:
            assert (again.arrays["a"] == 3).all()


def test_only_what_changed_goes_to_a_repository(bucket: str) -> None:
    url = f"{bucket}/state.icechunk"
    with Arena("64MiB") as arena:
        a = arena.array("u1", (6 * CHUNK,), name="a")
        a[:] = np.random.default_rng(1).integers(0, 256, len(a), dtype=np.uint8)
        LiveDump(arena).save(url)
        before = names(url)
        a[CHUNK] ^= 1
        LiveDump(arena).save(url)
        new = names(url) - before
        assert len([one for one in new if one.startswith("chunks/")]) == 1, new
        with Arena.load(url) as again:
            assert (again.arrays["a"] == a).all()


def without_bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    return "s3://nowhere/state"


def of_no_kind(monkeypatch: pytest.MonkeyPatch) -> str:
    return "carrier-pigeon://nowhere/state"


@pytest.mark.parametrize("end", ["zarr", "icechunk"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_bucket, "NoSuchBucket: The specified bucket does not exist"),
        (of_no_kind, "carrier-pigeon"),
    ],
)
def test_a_store_that_is_not_there(
    bucket: str,
    end: str,
    change: Callable[[pytest.MonkeyPatch], str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"{change(monkeypatch)}.{end}"
    with Arena("8MiB") as arena:
        arena.array("u1", (MIB,), name="a")[:] = 3
        with pytest.raises(TargetError, match=said) as raised:
            LiveDump(arena).save(url)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
        assert "verysecret" not in str(raised.value) and "AKIAKEY" not in str(raised.value)
    with pytest.raises(TargetError):
        open_arrays(url)


def test_a_bucket_that_goes_in_the_middle(
    bucket: str, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/state.zarr"
    real, lock, lost = nodes.as_stored, threading.Lock(), threading.Event()

    def lose(memory: Any) -> Any:
        with lock:
            if not lost.is_set():
                obstore.store.from_url(url).delete(sorted(names(url)))
                asked = urllib.request.Request(f"{moto}/bucket", method="DELETE")
                urllib.request.urlopen(asked, timeout=300).close()
                lost.set()
        return real(memory)

    monkeypatch.setattr(nodes, "as_stored", lose)
    with Arena("8MiB") as arena, LiveDump(arena) as live:
        arena.array("u1", (MIB,), name="a")[:] = 3
        with pytest.raises(TargetError, match="NoSuchBucket"):
            live.save(url)
        assert live.state.name == "UNINIT"
