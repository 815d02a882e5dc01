# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects in an object store: what they do, and what is said when the store does not."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from livedumpfs.errors import TargetError, UsageError
from livedumpfs.stores.remote_objects import RemoteObjects
from livedumpfs.stores.store import create_store, open_objects, open_store
from tests.fixtures.object_servers import ALL, IN_TIME, KEY, S3, SECRET


def test_objects_are_written_read_listed_and_removed(s3: S3) -> None:
    objects = open_objects(s3.place())
    assert isinstance(objects, RemoteObjects)
    data = os.urandom(100_000)
    objects.put("a/one", data)
    objects.put("a/b/two", memoryview(data)[:10])
    objects.put("three", b"")
    assert objects.get("a/one") == data
    assert objects.get_range("a/one", 10, 20) == data[10:30]
    assert objects.get_range("a/one", 99_990, 100) == data[99_990:]
    assert (objects.has("a/one"), objects.has("a"), objects.has("four")) == (True, False, False)
    every = {one.name: one.size for one in objects.names("")}
    assert every == {"a/one": 100_000, "a/b/two": 10, "three": 0}
    assert {one.name for one in objects.names("a/")} == {"a/one", "a/b/two"}
    assert {one.name for one in objects.names("", deep=False)} == {"three"}
    assert {one.name for one in objects.names("a/", deep=False)} == {"a/one"}
    objects.delete(["a/one", "four", "three"])
    assert {one.name for one in objects.names("")} == {"a/b/two"}
    objects.put("a/b/two", b"new")
    assert objects.get("a/b/two") == b"new"


def test_what_is_too_large_is_not_read(s3: S3) -> None:
    """What others put into the place cannot make its readers run out of memory."""
    objects = open_objects(s3.place())
    objects.put("x.json", bytes((1 << 20) + 1))
    with pytest.raises(TargetError, match="it has 1048577 bytes, more than 1048576") as caught:
        objects.get("x.json")
    assert caught.value.errno == errno.EFBIG
    objects.put("x.json", bytes(1 << 20))
    assert len(objects.get("x.json")) == 1 << 20


def test_many_threads_write_at_once(s3: S3) -> None:
    objects = open_objects(s3.place())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: objects.put(f"n/{n}", bytes([n]) * 1000), range(64)))
    assert {one.name for one in objects.names("n/")} == {f"n/{n}" for n in range(64)}
    assert objects.get("n/63") == bytes([63]) * 1000


def sentence(error: BaseException) -> str:
    """One line, without secrets."""
    text = str(error)
    assert "\n" not in text and KEY not in text and SECRET not in text, text
    return text


FAULTS = {
    "500": ({"how": "status", "status": 500}, errno.EIO, "the server answers with error 500"),
    "503": ({"how": "status", "status": 503}, errno.EIO, "the server answers with error 503"),
    "403": ({"how": "status", "status": 403}, errno.EACCES, "the server does not allow it"),
    "cut": ({"how": "cut"}, errno.ECONNRESET, "the connection was cut"),
    "slow": ({"how": "slow", "seconds": 20}, errno.ETIMEDOUT, "the server does not answer in time"),
}


ACTIONS: dict[str, Callable[[RemoteObjects], object]] = {
    "write": lambda objects: objects.put("x", b"data"),
    "read": lambda objects: objects.get("x"),
    "list": lambda objects: list(objects.names("")),
}


@pytest.mark.parametrize("action", ACTIONS if ALL else ["write"])
@pytest.mark.parametrize("fault", FAULTS if ALL else ["500", "403", "slow"])
def test_a_request_that_fails_for_good(fault: str, action: str, s3: S3) -> None:
    plan, number, cause = FAULTS[fault]
    s3.fails(**plan)  # type: ignore[arg-type]
    with pytest.raises(TargetError) as caught:
        ACTIONS[action](RemoteObjects(s3.place(), 3.0))
    said, name = sentence(caught.value), "" if action == "list" else "/x"
    assert said.startswith(f"cannot {action} {s3.place()}{name}: ")
    assert IN_TIME in said or (cause in said and caught.value.errno == number)
    s3.works()
    objects = open_objects(s3.place())
    objects.put("x", b"data")
    assert objects.get("x") == b"data"


@pytest.mark.parametrize(
    "plan",
    [
        {"how": "status", "status": 500, "times": 2},
        {"how": "cut", "times": 2},
        {"how": "half", "times": 1, "match": "^PUT"},
    ],
    ids=["500", "cut", "half"],
)
def test_a_request_that_fails_at_first_is_tried_again(plan: dict[str, object], s3: S3) -> None:
    objects = open_objects(s3.place())
    s3.fails(**plan)  # type: ignore[arg-type]
    objects.put("x", b"data")
    assert objects.get("x") == b"data"


def test_an_answer_that_is_cut_in_the_middle_is_no_shorter_object(s3: S3) -> None:
    objects = open_objects(s3.place())
    data = os.urandom(1 << 20)
    objects.put("x", data)
    s3.fails("half", match="^GET", times=1)
    assert objects.get("x") == data


@pytest.mark.skipif(not ALL, reason="make test-s3")
def test_a_long_list_that_is_cut_goes_on_where_it_was(s3: S3) -> None:
    objects = open_objects(s3.place())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: objects.put(f"n/{n}", b""), range(1100)))
    s3.fails("half", match="^GET", after=1, times=1)
    seen = len(s3.requests())
    found = [one.name for one in objects.names("n/")]
    assert len(found) == len(set(found)) == 1100
    assert len(s3.requests()) - seen == 3


def test_a_list_that_is_cut_in_the_middle_is_no_shorter_list(s3: S3) -> None:
    objects = open_objects(s3.place())
    for n in range(20):
        objects.put(f"n/{n}", b"")
    for deep in (True, False):
        s3.fails("half", match="^GET", times=2)
        assert len(list(objects.names("n/", deep=deep))) == 20
        s3.works()


def test_wrong_credentials(s3: S3) -> None:
    objects = open_objects(s3.place())
    s3.forged(strict=True)
    with pytest.raises(TargetError) as caught:
        objects.put("x", b"data")
    assert caught.value.errno == errno.EACCES
    said = sentence(caught.value)
    assert f"cannot write {s3.place()}/x: the server does not allow it (InvalidAccessKeyId)" in said
    assert "docs/object-stores.md" in said


def test_no_credentials(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(TargetError, match="there are no credentials") as caught:
        open_objects(s3.place())
    assert caught.value.errno == errno.EACCES and sentence(caught.value)


def test_credentials_of_a_profile(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "backup")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(TargetError, match="AWS_PROFILE names has no credentials") as caught:
        open_objects(s3.place())
    sentence(caught.value)
    file = f"[backup]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(file)
    objects = open_objects(s3.place())
    objects.put("x", b"data")
    assert objects.get("x") == b"data"


def test_a_bucket_that_goes_in_the_middle(s3: S3) -> None:
    objects = open_objects(s3.place())
    objects.put("x", b"data")
    s3.remove_bucket()
    for call in (
        lambda: objects.put("y", b"data"),
        lambda: objects.get("x"),
        lambda: list(objects.names("")),
    ):
        with pytest.raises(TargetError, match="there is no such bucket") as caught:
            call()
        assert caught.value.errno == errno.ENXIO and sentence(caught.value)


def test_no_server(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(TargetError, match="no server listens there") as caught:
        RemoteObjects(s3.place(), 1.0).get("x")
    assert caught.value.errno == errno.ECONNREFUSED and sentence(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        "s3://{key}:{secret}@bucket/store",
        "s3://{key}@bucket/store",
        "https://user:{secret}@host/store",
        "az://account/container?sig={secret}",
        "gs://bucket/store#{secret}",
    ],
)
def test_an_address_with_secrets_in_it_is_refused_without_them(place: str) -> None:
    with pytest.raises(UsageError, match="credentials do not go there") as caught:
        open_objects(place.format(key=KEY, secret=SECRET))
    sentence(caught.value)


def test_an_unknown_kind_of_place() -> None:
    with pytest.raises(UsageError, match="is no place of a known kind"):
        open_objects("ftp://host/store")


def test_a_deadline_that_is_none(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("soon", "0", "301", "nan"):
        monkeypatch.setenv("LIVEDUMP_REMOTE_DEADLINE", wrong)
        with pytest.raises(UsageError, match="LIVEDUMP_REMOTE_DEADLINE"):
            open_objects(s3.place())


def test_memory_and_files(tmp_path: object) -> None:
    objects = open_objects("memory:///")
    objects.put("a/x", b"data")
    assert objects.get("a/x") == b"data" and objects.has("a/x")
    for host in ("", "localhost"):
        assert open_objects(f"file://{host}{tmp_path}").url == str(tmp_path)
    for wrong in ("file://far/folder", "file://", "file://folder"):
        with pytest.raises(UsageError, match="names no folder of this computer"):
            create_store(wrong)


def test_a_store_is_made_once(s3: S3) -> None:
    with create_store(f"store:{s3.place()}") as store:
        assert store.names() == [] and store.url == s3.place()
    with pytest.raises(TargetError) as caught:
        create_store(f"store:{s3.place()}")
    assert caught.value.errno == errno.EEXIST
    with open_store(f"store:{s3.place()}") as store:
        assert store.names() == []
    with pytest.raises(TargetError) as caught:
        open_store(f"store:{s3.place('other')}")
    assert caught.value.errno == errno.ENOENT


END_S = 60


def leases() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "livedump-lease"}


def test_every_thread_has_ended(s3: S3) -> None:
    """Those of other tests may hang in a server's answer."""
    before, objects = leases(), open_objects(s3.place())
    with objects.lock(alone=True, wait_s=0):
        own = leases() - before
        assert own
    for one in own:
        one.join(END_S)
        assert not one.is_alive()
