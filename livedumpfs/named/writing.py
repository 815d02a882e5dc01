# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing arrays to a group, piece by piece, by several threads."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from livedumpfs.closing import Closing
from livedumpfs.core.array_info import ArrayInfo
from livedumpfs.errors import LivedumpError, UsageError
from livedumpfs.named import nodes
from livedumpfs.named.cut import ArrayPiece, Cut
from livedumpfs.named.group_target import NO_FILE, GroupTarget, Stamp
from livedumpfs.named.library_errors import cannot_write
from livedumpfs.named.save_record import ArrayRecord, Missing, array_record, bytes_of
from livedumpfs.thread import needing_threads
from livedumpfs.units import PAGE_SIZE

OnArrayBytes = Callable[[int, int], None]
"""Called with the bytes that are done, and all."""


class Origin(Protocol):
    """Memory of one instant, by arena offset: a snapshot, or a finished dump."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """OSError EIO: something there is lost."""


@dataclass
class PieceCounts:
    """What came of a save, besides its record."""

    pieces: int = 0
    kept: int = 0
    """Pieces that were taken over from the group before."""
    zeros: int = 0
    """Pieces of zeros, of which nothing is written."""


@dataclass
class ArrayPlan:
    """One array that is to be written."""

    info: ArrayInfo
    cut: Cut
    document: bytes
    before: ArrayRecord | None = None
    """What is known of its pieces in the group before; None: nothing that still holds."""
    array: Any = None
    digests: list[str] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def record(self, stamped: bool) -> ArrayRecord:
        """Of the written array."""
        stamps = self.stamps if stamped else None
        self.missing.sort(key=lambda one: one.first)
        return array_record(self.info, self.cut.piece, self.digests, stamps, self.missing)


def plan_arrays(
    named: Sequence[ArrayInfo], sharded: bool, compression: str, level: int
) -> list[ArrayPlan]:
    """UsageError: there is none, or one that Zarr cannot hold."""
    if not named:
        raise UsageError("there are no named arrays, and nothing else goes into a Zarr group")
    plans = []
    for info in named:
        shards = sharded and nodes.can_shard(info.dtype)
        cut = Cut.of(info.shape, info.dtype.itemsize, sharded=shards)
        plans.append(ArrayPlan(info, cut, nodes.array_document(info, cut, compression, level)))
    return plans


class Writer(Closing):
    """Writes the planned arrays to a target that has begun."""

    def __init__(
        self,
        target: GroupTarget,
        plans: Sequence[ArrayPlan],
        origin: Origin,
        *,
        accept_missing: bool,
        progress: OnArrayBytes | None = None,
    ) -> None:
        """`accept_missing`: zeros stand for what is lost, and the plans say which."""
        self._target = target
        self._plans = plans
        self._origin = origin
        self._accept_missing = accept_missing
        self._progress = progress
        self._total = sum(bytes_of(plan.info) for plan in plans)
        self._done = 0
        self._lock = threading.Condition()
        self._active = 0
        """Pieces that are being written."""
        self._own = threading.local()
        self._stop = False
        self._pool: ThreadPoolExecutor | None = None
        self.written = PieceCounts()

    def run(self, threads: int) -> None:
        """All of it. OSError EIO: something is lost. TargetError: it cannot be written."""
        try:
            for plan in self._plans:
                self._prepare(plan)
        except Exception as error:  # as in _store
            raise cannot_write(self._target.path, error) from error
        work = [one for plan in self._plans for one in _numbered(plan)]
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="livedump-arrays")
        try:
            with needing_threads(f"write {self._target.path}"):
                futures = [self._pool.submit(self._write, *one) for one in work]
            self._collect(futures)
        except BaseException:
            # Without a wait: what a thread writes may take long to fail, and a snapshot is held.
            with self._lock:
                self._stop = True
            self._pool.shutdown(wait=False, cancel_futures=True)
            raise
        self.close()

    def close(self) -> None:
        """Wait for its threads. A pool does not know each of its own where a signal's handler
        raised while one started."""
        with self._lock:
            self._stop = True
            self._lock.wait_for(lambda: not self._active)
        if self._pool:
            self._pool.shutdown()

    def _collect(self, futures: list[Future[None]]) -> None:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for one in done:
            one.result()

    def _prepare(self, plan: ArrayPlan) -> None:
        name = plan.info.name
        plan.array = nodes.open_array(self._target.store, name, "r+")
        count = sum(1 for _ in plan.cut.pieces())
        plan.digests, plan.stamps = [""] * count, [NO_FILE] * count
        previous = self._target.previous
        before = previous.arrays.get(name) if previous else None
        if (
            before is not None
            and before.dtype == array_record(plan.info, (), [], None, []).dtype
            and (before.shape, before.piece) == (plan.info.shape, plan.cut.piece)
            and not before.missing
            and self._target.previous_document(name) == plan.document
        ):
            plan.before = before

    def _write(self, plan: ArrayPlan, number: int, piece: ArrayPiece) -> None:
        with self._lock:
            if self._stop:
                return
            self._active += 1
        try:
            self._write_piece(plan, number, piece)
        finally:
            with self._lock:
                self._active -= 1
                self._lock.notify_all()

    def _write_piece(self, plan: ArrayPlan, number: int, piece: ArrayPiece) -> None:
        key = f"{plan.info.name}/{plan.array.metadata.encode_chunk_key(piece.index)}"
        data = self._buffer(piece.length)
        self._read(plan, piece, data)
        digest = xxhash.xxh3_128_hexdigest(data.data)
        kept, zeros = False, not data.any() and _fills_with_zeros(plan)
        if plan.before is not None and plan.before.digest(number) == digest:
            stamp = plan.before.stamps[number] if plan.before.stamps else None
            kept = zeros or self._target.keep(key, stamp)
        if zeros:
            self._target.leave_out(key)
        elif not kept:
            self._store(plan, piece, data)
        plan.digests[number] = digest
        if self._target.stamped and not zeros:
            plan.stamps[number] = self._target.stamp(key)
        self._count(piece.length, kept and not zeros, zeros)

    def _buffer(self, length: int) -> npt.NDArray[np.uint8]:
        """Of this thread."""
        own = getattr(self._own, "buffer", None)
        if own is None or len(own) < length:
            own = self._own.buffer = np.empty(length, dtype=np.uint8)
        found: npt.NDArray[np.uint8] = own[:length]
        return found

    def _read(self, plan: ArrayPlan, piece: ArrayPiece, data: npt.NDArray[np.uint8]) -> None:
        at = plan.info.offset + piece.offset
        try:
            self._origin.read_into(at, data.data)
        except OSError as error:
            if error.errno != errno.EIO or not self._accept_missing:
                raise
            self._read_what_is_there(plan, at, data)
        if plan.info.dtype.kind == "b":
            data[:] = data != 0

    def _read_what_is_there(self, plan: ArrayPlan, at: int, data: npt.NDArray[np.uint8]) -> None:
        for begin, end in _pages(at, at + len(data)):
            part = data[begin - at : end - at]
            try:
                self._origin.read_into(begin, part.data)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                part[:] = 0
                start = plan.info.offset
                with self._lock:
                    plan.missing.append(Missing(begin - start, end - start))

    def _store(self, plan: ArrayPlan, piece: ArrayPiece, data: npt.NDArray[np.uint8]) -> None:
        memory = data.view(plan.info.dtype).reshape(piece.shape)
        try:
            plan.array[piece.region or ...] = nodes.as_stored(memory)
        except LivedumpError:
            raise
        except Exception as error:  # of the file system, or of the library of an object store
            raise cannot_write(self._target.path, error) from error

    def _count(self, length: int, kept: bool, zeros: bool) -> None:
        with self._lock:
            self._done += length
            self.written.pieces += 1
            self.written.kept += kept
            self.written.zeros += zeros
            if self._progress:
                self._progress(self._done, self._total)


def _numbered(plan: ArrayPlan) -> Iterator[tuple[ArrayPlan, int, ArrayPiece]]:
    for number, piece in enumerate(plan.cut.pieces()):
        yield plan, number, piece


def _pages(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The range cut at pages."""
    while begin < end:
        stop = min(end, (begin // PAGE_SIZE + 1) * PAGE_SIZE)
        yield begin, stop
        begin = stop


def _fills_with_zeros(plan: ArrayPlan) -> bool:
    """Whether a piece that is not there is read as zeros."""
    dtype = nodes.stored_dtype(plan.info.dtype)
    fill = plan.array.metadata.fill_value
    return not np.asarray(fill, dtype=dtype).tobytes().strip(b"\0")
