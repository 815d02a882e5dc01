# SPDX-License-Identifier: GPL-2.0-or-later
"""One object that is written in any order."""

from __future__ import annotations

import errno
import random

import pytest

from livedumpfs.errors import TargetError
from livedumpfs.stores import s3_file
from livedumpfs.stores.s3_file import S3File
from tests.fixtures.object_servers import ALL, S3

PART = 5 << 20
"""The least that S3 takes."""


def content(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def write(file: S3File, data: bytes, seed: int) -> None:
    places = list(range(0, len(data), 1 << 18))
    random.Random(seed).shuffle(places)
    for at in places:
        file.write(at, memoryview(data[at : at + (1 << 18)]))


def keys(s3: S3) -> list[str]:
    text = s3.ask("GET", s3.bucket).decode()
    return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]


LENGTHS = [0, 1, PART - 1, PART, PART + 1, 3 * PART + 7]


@pytest.mark.parametrize("length", LENGTHS if ALL else [0, PART, PART + 1])
def test_it_is_there_whole(length: int, s3: S3) -> None:
    data = content(length)
    with S3File(s3.place("a b"), part_size=PART) as file:
        write(file, data, length)
        file.finish()
    assert s3.ask("GET", f"{s3.bucket}/a%20b") == data
    assert keys(s3) == ["a b"]


def test_holes_are_zeros(s3: S3) -> None:
    with S3File(s3.place("x"), part_size=PART) as file:
        file.write(4 * PART + 5, memoryview(b"end"))
        file.write(2 * PART, memoryview(b"middle"))
        file.finish()
    data = s3.ask("GET", f"{s3.bucket}/x")
    assert len(data) == 4 * PART + 8 and data.endswith(b"\0end")
    assert data[2 * PART : 2 * PART + 7] == b"middle\0"
    assert data.count(b"\0") == 4 * PART + 8 - 9


def test_without_finish_the_old_one_stays(s3: S3) -> None:
    s3.ask("PUT", f"{s3.bucket}/x", b"old")
    with pytest.raises(TargetError, match="there is such an object") as caught:
        S3File(s3.place("x"))
    assert caught.value.errno == errno.EEXIST
    with S3File(s3.place("x"), force=True, part_size=PART) as file:
        write(file, content(3 * PART), 1)
    assert s3.ask("GET", f"{s3.bucket}/x") == b"old" and keys(s3) == ["x"]


def test_an_answer_that_is_lost_at_the_end(s3: S3) -> None:
    data = content(2 * PART)
    s3.fails("half", match="POST .*uploadId", times=1)
    with S3File(s3.place("x"), part_size=PART) as file:
        write(file, data, 1)
        file.finish()
    assert s3.ask("GET", f"{s3.bucket}/x") == data and keys(s3) == ["x"]


def test_what_killed_processes_left_goes(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a day, and nothing else: the name of the object may be that of a folder of others."""
    left = ["x.parts/0123456789abcdef/00001", "x.parts/0123456789abcdef/zeros"]
    others = ["x.parts-of-others", "x.parts/0123456789abcdef/notes", "x.parts/00001", "x.parts/a.c"]
    for key in left + others:
        s3.ask("PUT", f"{s3.bucket}/{key}", b"left")
    S3File(s3.place("x")).close()
    assert sorted(keys(s3)) == sorted(left + others)
    monkeypatch.setattr(s3_file, "_LEFT_S", -1.0)
    S3File(s3.place("x")).close()
    assert sorted(keys(s3)) == sorted(others)


@pytest.mark.parametrize("force", [True, False])
def test_two_that_write_one_object_do_not_mix(force: bool, s3: S3) -> None:
    with (
        S3File(s3.place("x"), force=force, part_size=PART) as first,
        S3File(s3.place("x"), force=force, part_size=PART) as second,
    ):
        for at in range(3):
            for file, letter in ((first, b"A"), (second, b"B")):
                file.write(at * PART, memoryview(letter * PART))
        first.finish()
        assert s3.ask("GET", f"{s3.bucket}/x") == b"A" * 3 * PART
        if force:
            second.finish()
        else:
            with pytest.raises(TargetError, match="there is such an object"):
                second.finish()
    assert s3.ask("GET", f"{s3.bucket}/x") == (b"B" if force else b"A") * 3 * PART
    assert keys(s3) == ["x"]


def test_more_than_s3_takes_is_refused(s3: S3) -> None:
    with S3File(s3.place("x"), part_size=PART) as file, pytest.raises(TargetError) as caught:
        file.write(10_000 * PART - 1, memoryview(b"xy"))
    assert caught.value.errno == errno.EFBIG
