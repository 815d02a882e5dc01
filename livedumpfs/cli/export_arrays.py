# SPDX-License-Identifier: GPL-2.0-or-later
"""The named arrays of a dump, for `convert`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from livedumpfs.cli import text
from livedumpfs.cli.outcome import note
from livedumpfs.cli.progress import display
from livedumpfs.compression import COMPRESSION
from livedumpfs.errors import UsageError
from livedumpfs.named.places import is_for_arrays

if TYPE_CHECKING:
    from livedumpfs.dumpfile import DumpFile, OnProgress, Output
    from livedumpfs.named.dump_arrays import DumpArrays

_FILES: Final = {".npy": "npy", ".npz": "npz", ".safetensors": "safetensors"}


def format_by_name(out: str) -> str | None:
    """The format of arrays that a file is to have by how its name ends; None: of none."""
    if is_for_arrays(out):
        return "zarr"
    return next((format for end, format in _FILES.items() if out.endswith(end)), None)


def export_arrays(
    args: argparse.Namespace, format: str, open_output: Callable[[str], Output]
) -> str:
    """Returns the verdict of the dump. InvalidDump: pages of an array are
    missing, without --force; nothing is written then."""
    from livedumpfs.dumpfile import open_dump
    from livedumpfs.named.dump_arrays import DumpArrays

    with open_dump(args.target, args.sidecar) as dump, display("convert") as shown:
        arrays = DumpArrays(dump, args.array, force=args.force)

        def progress(done: int, total: int) -> None:
            shown.update(done, total, 0)

        if format in ("npy", "npz"):
            _write_file(format, arrays, open_output(args.out), progress)
        else:
            _write_by_name(args, format, dump, arrays, progress)
    if dump.verdict != "consistent":
        zeros = text.count(arrays.missing, "byte")
        rest = (
            f"{zeros} of the arrays written as zeros" if arrays.missing else "the arrays are whole"
        )
        note(f"{args.target} is {dump.verdict}; {rest}")
    return dump.verdict


def _write_file(format: str, arrays: DumpArrays, output: Output, progress: OnProgress) -> None:
    from livedumpfs.named.array_files import write_npy, write_npz

    with output:
        (write_npy if format == "npy" else write_npz)(arrays, output, progress)


def _write_by_name(
    args: argparse.Namespace,
    format: str,
    dump: DumpFile,
    arrays: DumpArrays,
    progress: OnProgress,
) -> None:
    from livedumpfs.named.array_files import write_safetensors

    if args.out == "-":
        raise UsageError(f"{format} needs a name, and does not go to standard output")
    if format == "safetensors":
        write_safetensors(arrays, args.out, dump)
    else:
        _write_group(args, dump, arrays, progress)


def _write_group(
    args: argparse.Namespace, dump: DumpFile, arrays: DumpArrays, progress: OnProgress
) -> None:
    from livedumpfs.named.saving import ArraySave

    with ArraySave(
        args.out,
        arrays.named,
        force=args.force,
        compression=args.compression or COMPRESSION,
        level=args.level,
        threads=args.threads,
    ) as save:
        save.begin()
        save.write(arrays, progress=progress)
        save.publish("torn" if arrays.missing else "consistent", dump.meta, dump.arena_size, None)
