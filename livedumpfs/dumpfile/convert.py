# SPDX-License-Identifier: GPL-2.0-or-later
"""From a dump to another layout.

`elf`, `kdump`, `flat` and `raw` with its table at the tail become dumps of the same instant: with
the granule table, its checksums as they were when the memory was saved, with what the dump says of
itself, and its verdict; a page that is missing stays missing. `raw` and `lime` are plain images, as
they are in snapshot/: nothing of ours is in them, and zeros for missing pages.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.compression import COMPRESSION, check_compression, usual_threads
from livedumpfs.dumpfile.checksums import OnProgress
from livedumpfs.dumpfile.destination import PIECE, Flattened, NewFile, Output
from livedumpfs.dumpfile.granules import runs
from livedumpfs.dumpfile.pack import KdumpWriter
from livedumpfs.dumpfile.reader import DumpFile
from livedumpfs.dumpfile.stored import (
    images_of,
    machine_of,
    missing_pages,
    registers_of,
    state_runs,
)
from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats import (
    ArenaPiece,
    Image,
    KdumpPlan,
    Literal,
    Plan,
    plan_dump,
    room_for,
    table,
)
from livedumpfs.formats import meta as meta_slot
from livedumpfs.settings import PACKED
from livedumpfs.units import PAGE_SIZE, align_up

IMAGES: Final = {"raw": "mem.raw", "lime": "mem.lime"}
"""Formats that are plain images, and the files of snapshot/ that they are."""


def is_image(format: str, table_at: str = "none") -> bool:
    """Whether a dump in that format has no room for what is missing, and how it is known."""
    return format in IMAGES and not (format == "raw" and table_at == "tail")


def refuse_inconsistent(dump: DumpFile) -> None:
    """InvalidDump unless the dump is consistent: an image cannot say which pages are no good."""
    if dump.verdict != "consistent":
        raise InvalidDump(
            f"{dump.path} is {dump.verdict}: {missing_pages(dump)} pages are missing",
            hint="<force> writes zeros there, and formats elf and kdump say what is missing",
        )


def convert_dump(
    dump: DumpFile,
    format: str,
    output: Output,
    progress: OnProgress | None = None,
    *,
    table_at: str = "none",
    compression: str = COMPRESSION,
    level: int = 0,
    threads: int = 0,
    check: bool = True,
    align: int = PAGE_SIZE,
) -> None:
    """Write the dump in one of CONVERTED. `table_at`: of raw, "none" or "tail". `compression`,
    `level`, `threads`: of kdump and flat; threads 0: one a CPU, at most 4. A kdump that goes to
    what cannot seek is flat. `check`: refuse (InvalidDump) a plain image of a dump that is not
    consistent; without that zeros stand for what is missing. `align`: of `elf`, a power of two of
    whose bytes the memory's offset in the file is a multiple.

    UsageError: no such compression or level. OSError: the dump's target cannot be read;
    InvalidDump, DamagedPage: what is on it makes no sense; errors of `output`.
    """
    if is_image(format, table_at):
        if check:
            refuse_inconsistent(dump)
        write_image(dump, images_of(dump)[IMAGES[format]], output, progress)
    elif format in PACKED:
        check_compression(compression, level)
        plan = _plan(dump, "kdump", compression=compression, level=level)
        assert isinstance(plan, KdumpPlan)
        flat = format == "flat" or not isinstance(output, NewFile)
        _write_kdump(dump, plan, output, flat, usual_threads(threads), progress)
    else:
        plan = _plan(dump, format, table_at="tail" if format == "raw" else "sidecar", align=align)
        write_image(dump, _dump_image(dump, plan), output, progress)


def _plan(
    dump: DumpFile,
    format: str,
    *,
    table_at: str = "sidecar",
    compression: str = COMPRESSION,
    level: int = 0,
    align: int = PAGE_SIZE,
) -> Plan:
    machine = machine_of(dump)
    room = align_up(max(dump.superblock.meta_room, room_for(machine, _text_size(dump))), PAGE_SIZE)
    try:
        return plan_dump(
            format,
            machine,
            arena_size=dump.arena_size,
            granule_size=dump.granule_size,
            meta_room=room,
            compression=compression,
            level=level,
            table=table_at,
            align=align,
        )
    except UsageError as error:
        raise UsageError(
            f"{dump.path} cannot be of format {format}: {error.message}", hint=error.hint
        ) from error


def _text_size(dump: DumpFile) -> int:
    """Of what it says of itself. InvalidDump: JSON that was read, and cannot be written."""
    try:
        return meta_slot.text_size(dump.meta)
    except (ValueError, RecursionError) as error:
        raise InvalidDump(f"{dump.path} has meta data that cannot be kept: {error}") from error


def _finished(dump: DumpFile, plan: Plan, total_size: int | None = None) -> list[tuple[int, bytes]]:
    """(offset, bytes) of all but memory, descriptors and table."""
    registers = registers_of(dump)
    meta = {
        **dump.meta,
        "registers": registers or dump.meta.get("registers", []),
        "converted": {"format": dump.format, "dump_id": dump.dump_id.hex()},
    }
    writes = plan.finished(dump.verdict, meta, registers, total_size=total_size)
    return [(w.offset, w.data) for w in writes]


def _dump_image(dump: DumpFile, plan: Plan) -> Image:
    """The whole file of a dump whose layout is fixed."""
    entries = dump.entries.copy()
    entries["where"] = 0
    saved = entries["state"] == table.SAVED
    lengths = np.full(len(entries), dump.granule_size, dtype=np.uint32)
    lengths[-1] = dump.granule_length(len(entries) - 1)
    entries["stored"] = np.where(saved, lengths, 0)
    segments: list[Literal | ArenaPiece] = [
        Literal(plan.table_offset, table.build_table(entries, plan.dump_id)),
        *(Literal(offset, data) for offset, data in _finished(dump, plan)),
        *(ArenaPiece(e.target_offset, e.arena_offset, e.length) for e in plan.extents),
    ]
    segments.sort(key=lambda segment: segment.offset)
    return Image(plan.format, plan.total_size, tuple(segments))


def _write_kdump(
    dump: DumpFile,
    plan: KdumpPlan,
    output: Output,
    flat: bool,
    threads: int,
    progress: OnProgress | None,
) -> None:
    # What could still be refused is refused before the work.
    _finished(dump, plan)
    placed = output if isinstance(output, NewFile) and not flat else Flattened(output)
    writer = KdumpWriter(dump, plan, placed)
    writer.run(threads, progress)
    placed.write_at(table.build_table(writer.entries, plan.dump_id), plan.table_offset)
    for offset, data in _finished(dump, plan, writer.end):
        placed.write_at(data, offset)
    placed.finish(writer.end)


def write_image(
    dump: DumpFile, image: Image, output: Output, progress: OnProgress | None = None
) -> None:
    """Write an image of the dump's memory; zeros for missing pages. OSError: the dump's target
    cannot be read; errors of `output`."""
    buffer = memoryview(bytearray(PIECE))
    for piece in image.pieces(0, image.size):
        if isinstance(piece, Literal):
            output.write(piece.data)
        elif isinstance(piece, ArenaPiece):
            for inside in range(0, piece.length, PIECE):
                length = min(PIECE, piece.length - inside)
                _copy(dump, piece.arena_offset + inside, length, output, buffer)
                if progress is not None:
                    progress(piece.offset + inside + length, image.size)
        else:
            output.skip(piece.length)
    output.finish()


def _copy(dump: DumpFile, offset: int, length: int, output: Output, buffer: memoryview) -> None:
    """One piece of the arena, at most as long as the buffer."""
    for at, size, state in state_runs(dump, offset, length):
        if state != table.SAVED:
            output.skip(size)
            continue
        part = buffer[:size]
        dump.read_stored(at, part)
        _write_pages(part, output)


def _write_pages(data: memoryview, output: Output) -> None:
    """Pages of zeros are skipped."""
    words = np.frombuffer(data, np.uint64) != 0
    filled: npt.NDArray[np.bool_] = words.reshape(-1, PAGE_SIZE // 8).any(axis=1)
    at = 0
    for first, end in runs(filled):
        output.skip(first * PAGE_SIZE - at)
        output.write(data[first * PAGE_SIZE : end * PAGE_SIZE])
        at = end * PAGE_SIZE
    output.skip(len(data) - at)
