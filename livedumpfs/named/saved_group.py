# SPDX-License-Identifier: GPL-2.0-or-later
"""SavedGroup: the arrays of a Zarr group, as an arena has them."""

from __future__ import annotations

import errno
import math
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from livedumpfs.closing import Closing
from livedumpfs.compression import usual_threads
from livedumpfs.core.array_info import ArrayInfo
from livedumpfs.dumpfile.layout import parse_arrays
from livedumpfs.errors import InvalidDump, LivedumpError, TargetError
from livedumpfs.formats import VerdictWord
from livedumpfs.named import nodes
from livedumpfs.named.cut import ArrayPiece, Cut
from livedumpfs.named.extra import extra
from livedumpfs.named.icechunk_group import BRANCH, open_repository
from livedumpfs.named.library_errors import cannot_reach
from livedumpfs.named.local_group import MARK, is_broken_off
from livedumpfs.named.object_group import object_store
from livedumpfs.named.places import is_icechunk, is_object_store
from livedumpfs.named.save_record import DIGEST, ArrayRecord, SaveRecord, read_record
from livedumpfs.units import PAGE_SIZE

_ALIGNMENT: Final = PAGE_SIZE
_AHEAD: Final = 2
"""Pieces for each thread that are read before they are asked for."""


class SavedGroup(Closing):
    """An open group. Reads are of one thread; each checks the checksums of what it reads."""

    granule_size = PAGE_SIZE

    def __init__(self, path: str, store: Any, threads: int = 0) -> None:
        """Use open_arrays."""
        self.path = path
        with nodes.quiet():
            group = extra("zarr").open_group(store, mode="r")
            self._nodes = dict(group.arrays())
        self.record: SaveRecord | None = read_record(group.attrs.asdict())
        """What it says of its save; None: it is of another program."""
        self.arrays: tuple[ArrayInfo, ...] = tuple(
            self._of_record(self.record) if self.record else _placed(self._nodes)
        )
        ends = [one.offset + _size(one) for one in self.arrays]
        needed = max(ends, default=0)
        self.arena_size = max(self.record.arena_size if self.record else 0, needed, PAGE_SIZE)
        self._threads = usual_threads(threads)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="livedump-arrays")
        self._pieces = [(one, n, p) for one in self.arrays for n, p in _pieces(one, self.record)]
        self._pieces.sort(key=lambda found: found[0].offset + found[2].offset)
        self._read: OrderedDict[int, Future[npt.NDArray[np.uint8]]] = OrderedDict()

    def _of_record(self, record: SaveRecord) -> list[ArrayInfo]:
        listed = [
            {"name": name, "dtype": one.dtype, "shape": one.shape, "offset": one.offset}
            | ({"dims": one.dims} if one.dims is not None else {})
            for name, one in record.arrays.items()
        ]
        found = []
        for one in parse_arrays({"arrays": listed}, record.arena_size):
            node = self._nodes.get(one.name)
            if node is None:
                raise InvalidDump(f"it has no array {one.name!r}, of which it says something")
            if node.shape != one.shape or not _is_stored_as(node.dtype, one.dtype):
                raise InvalidDump(f"its array {one.name!r} is not as it says")
            found.append(ArrayInfo(one.name, one.dtype, one.shape, one.offset, one.dims))
        return found

    @property
    def verdict(self) -> VerdictWord:
        """Of the save; "incomplete": there is none, it is a group of another program."""
        return self.record.verdict if self.record else "incomplete"

    def missing(self) -> Sequence[tuple[int, int]]:
        """Ranges of the arena that the dump lost, of whole pages."""
        if self.record is None:
            return ()
        found = [
            (
                (one.offset + lost.first) // PAGE_SIZE * PAGE_SIZE,
                -(-(one.offset + lost.end) // PAGE_SIZE) * PAGE_SIZE,
            )
            for one in self.record.arrays.values()
            for lost in one.missing
        ]
        merged: list[tuple[int, int]] = []
        for first, end in sorted(found):
            if merged and first <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((first, end))
        return merged

    def array(self, name: str) -> npt.NDArray[Any]:
        """A copy of the array with that name. KeyError: none. Raises as read_into."""
        for one in self.arrays:
            if one.name == name:
                data = np.empty(_size(one), dtype=np.uint8)
                self.read_into(one.offset, data.data)
                return data.view(one.dtype).reshape(one.shape)
        raise KeyError(name)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Bytes of the arena, zeros where it has no array. InvalidDump: a piece does not have its
        checksum. TargetError: the store cannot be read."""
        out = np.frombuffer(view, dtype=np.uint8)
        out[:] = 0
        end = offset + len(out)
        first = self._first_behind(offset)
        for number in range(first, len(self._pieces)):
            info, _, piece = self._pieces[number]
            begin = info.offset + piece.offset
            if begin >= end:
                break
            data = self._get(number)
            a, b = max(begin, offset), min(begin + piece.length, end)
            out[a - offset : b - offset] = data[a - begin : b - begin]

    def _first_behind(self, offset: int) -> int:
        """The first piece that ends behind that place: none overlaps another one."""
        low, high = 0, len(self._pieces)
        while low < high:
            middle = (low + high) // 2
            info, _, piece = self._pieces[middle]
            if info.offset + piece.offset + piece.length <= offset:
                low = middle + 1
            else:
                high = middle
        return low

    def _get(self, number: int) -> npt.NDArray[np.uint8]:
        most = self._threads * _AHEAD
        for one in range(number, min(number + most, len(self._pieces))):
            if one not in self._read:
                self._read[one] = self._pool.submit(self._load, one)
        found = self._read[number].result()
        while len(self._read) > most + 1:
            oldest = next(iter(self._read))
            if oldest >= number:
                break
            del self._read[oldest]
        return found

    def _load(self, number: int) -> npt.NDArray[np.uint8]:
        info, place, piece = self._pieces[number]
        try:
            found = np.asarray(self._nodes[info.name][piece.region or ...])
        except Exception as error:  # of the file system, of a codec, or of an object store
            raise cannot_reach(self.path, error) from error
        data = np.ascontiguousarray(found.astype(info.dtype, copy=False))
        loaded: npt.NDArray[np.uint8] = data.reshape(-1).view(np.uint8)
        record = self.record.arrays[info.name] if self.record else None
        if record and xxhash.xxh3_128_hexdigest(loaded.data) != record.digest(place):
            raise InvalidDump(
                f"array {info.name!r} of {self.path} is damaged: bytes {piece.offset:#x} to "
                f"{piece.offset + piece.length:#x} do not have their checksum"
            )
        return loaded

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown(cancel_futures=True)


def open_arrays(path: str | os.PathLike[str], *, version: str | None = None) -> SavedGroup:
    """The arrays of a save: a Zarr group in a directory or an object store, or an Icechunk
    repository; there `version` is a commit, None the last one. A Zarr group of another program
    opens, too: its verdict is "incomplete", since nothing says what it is.

    TargetError (OSError): nothing is there, or it cannot be read. InvalidDump (ValueError): what it
    says makes no sense, or a save of it was broken off. MissingPackage (ImportError)."""
    text = os.fspath(path).rstrip("/")
    try:
        return SavedGroup(text, _store(text, version))
    except InvalidDump as error:
        raise InvalidDump(f"{text}: {error.message}", hint=error.hint) from error
    except (LivedumpError, ImportError):
        raise
    except Exception as error:
        raise _why_not(text, error) from error


def _store(path: str, version: str | None) -> Any:
    if is_icechunk(path):
        repository = open_repository(path, create=False)
        how = {"snapshot_id": version} if version else {"branch": BRANCH}
        return repository.readonly_session(**how).store
    storage = extra("zarr.storage")
    if is_object_store(path):
        return storage.ObjectStore(object_store(path), read_only=True)
    if is_broken_off(path):
        raise _broken_off()
    if not os.path.lexists(path):
        raise TargetError(f"there is no {path}", errno=errno.ENOENT)
    return storage.LocalStore(path, read_only=True)


def _why_not(path: str, error: Exception) -> LivedumpError:
    zarr_errors = extra("zarr.errors")
    if not isinstance(error, (FileNotFoundError, zarr_errors.GroupNotFoundError)):
        return cannot_reach(path, error)
    if is_object_store(path) and not is_icechunk(path):
        try:
            object_store(path).head(MARK)
            found = _broken_off()
            return InvalidDump(f"{path}: {found.message}", hint=found.hint)
        except Exception as second:
            if not isinstance(second, FileNotFoundError):
                return cannot_reach(path, second)
    if is_icechunk(path):
        return TargetError(f"nothing was saved to {path} yet", errno=errno.ENOENT)
    return TargetError(f"{path} is no Zarr group", errno=errno.EINVAL)


def _broken_off() -> InvalidDump:
    return InvalidDump(
        "it is incomplete: its save was broken off, or still runs", hint="save again"
    )


def _placed(found: dict[str, Any]) -> list[ArrayInfo]:
    """Arrays of another program one behind the other."""
    placed, at = [], 0
    for name, node in found.items():
        names = node.metadata.dimension_names
        named = tuple(names) if names and all(names) else None
        info = ArrayInfo(name, np.dtype(node.dtype), tuple(node.shape), at, named)
        if info.dtype.hasobject or info.dtype.itemsize == 0:
            raise InvalidDump(f"its array {name!r} of dtype {info.dtype} has no fixed size")
        placed.append(info)
        at += -(-_size(info) // _ALIGNMENT) * _ALIGNMENT
    return placed


def _pieces(info: ArrayInfo, record: SaveRecord | None) -> list[tuple[int, ArrayPiece]]:
    if record is None:
        cut = Cut.of(info.shape, info.dtype.itemsize, sharded=True)
    else:
        one: ArrayRecord = record.arrays[info.name]
        cut = Cut(info.shape, info.dtype.itemsize, one.piece, None)
        if math.prod(cut.grid) * DIGEST != len(one.xxh3_128):
            raise InvalidDump(f"what it says of array {info.name!r} makes no sense")
    return [(n, p) for n, p in enumerate(cut.pieces()) if p.length]


def _size(info: ArrayInfo) -> int:
    return math.prod(info.shape) * info.dtype.itemsize


def _is_stored_as(stored: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    return bool(stored.newbyteorder("<") == nodes.stored_dtype(dtype))
