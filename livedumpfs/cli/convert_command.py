# SPDX-License-Identifier: GPL-2.0-or-later
"""`convert`: from a dump to another format, or to a plain image."""

from __future__ import annotations

import argparse
import errno
import os
from typing import TYPE_CHECKING, BinaryIO, Final

from livedumpfs.cli import text
from livedumpfs.cli.arguments import DUMP_HELP, Commands, add_command, add_option, add_sidecar
from livedumpfs.cli.export_arrays import export_arrays, format_by_name
from livedumpfs.cli.facts import add_json, tell_facts
from livedumpfs.cli.identity import add_identity
from livedumpfs.cli.outcome import Exit, note
from livedumpfs.cli.output import INPUT_FD, OUTPUT_FD, cannot_say, say
from livedumpfs.cli.progress import display
from livedumpfs.compression import COMPRESSION
from livedumpfs.errors import TargetError, UsageError
from livedumpfs.settings import CONVERTED, CONVERTED_TABLES, EXPORTED, OPTION, PACKED
from livedumpfs.units import format_size

if TYPE_CHECKING:
    from livedumpfs.dumpfile import DumpFile, Output

STANDARD = "-"
"""Stands for standard input, or standard output."""
_PACKING: Final = tuple(OPTION[name] for name in ("compression", "level", "threads"))
"""Options for the formats that are PACKED."""


def add_commands(commands: Commands) -> None:
    """Register this group."""
    parser = add_command(
        commands, "convert", "Write a dump in another format, or as a plain image.", run_convert
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help=f"{DUMP_HELP}; or a dump in makedumpfile's flattened form in a file or, with -, on "
        "standard input",
    )
    add_identity(parser)
    parser.add_argument(
        "out", metavar="OUT", help="file to make, or a store; - for standard output"
    )
    parser.add_argument(
        "--format",
        choices=(*CONVERTED, *EXPORTED),
        help="layout of it; default: by how OUT ends (.npy, .npz, .safetensors, .zarr, .icechunk: "
        "the named arrays), else elf",
    )
    parser.add_argument(
        "--array",
        metavar="NAME",
        action="append",
        default=[],
        help="this array, with a format of named arrays; may be given several times; default: all",
    )
    for one in _PACKING:
        add_option(parser, one)
    parser.add_argument(
        "--table",
        choices=CONVERTED_TABLES,
        help="tail: of raw, a dump with its granule table behind the memory; default: none, a "
        "plain image",
    )
    add_sidecar(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="also to a plain image, or to arrays, from a dump that is not consistent; missing "
        "pages are zeros",
    )
    add_json(parser, "what was written, for programs")


def run_convert(args: argparse.Namespace) -> int:
    """Exit status: 0 when all is written; 3 when the dump is not valid, or, for a plain image
    without --force, not consistent."""
    from livedumpfs.dumpfile import is_flattened

    if args.json and args.out == STANDARD:
        raise UsageError("--json does not go with a dump on standard output")
    if args.target == STANDARD or is_flattened(args.target):
        return _rearrange(args)
    format = args.format or format_by_name(args.out) or "elf"
    _check_options(args, format)
    if _is_store(args.out):
        return _into_store(args, format)
    try:
        if format in EXPORTED:
            verdict = export_arrays(args, format, open_output)
            return _tell(args, format, verdict) if args.json else Exit.DONE
        return _convert(args, format)
    except BrokenPipeError as error:
        raise TargetError(cannot_say(error), errno=errno.EPIPE) from error


def _check_options(args: argparse.Namespace, format: str) -> None:
    if args.array and format not in EXPORTED:
        raise UsageError(f"--array goes with --format {EXPORTED[0]}, not with {format}")
    for one in (*_PACKING, OPTION["table"]):
        formats = (*PACKED, "zarr") if one in _PACKING else one.formats
        if getattr(args, one.name) and format not in formats:
            raise UsageError(f"{one.flag} goes with --format {formats[0]}, not with {format}")
    OPTION["threads"].check(args.threads)


def _convert(args: argparse.Namespace, format: str) -> int:
    from livedumpfs.dumpfile import convert_dump, is_image, open_dump, refuse_inconsistent

    table_at = args.table or "none"
    image = is_image(format, table_at)
    with open_dump(args.target, args.sidecar) as dump:
        if image and not args.force:
            refuse_inconsistent(dump)
        with open_output(args.out) as out, display("convert") as shown:
            convert_dump(
                dump,
                format,
                out,
                lambda done, total: shown.update(done, total, 0),
                table_at=table_at,
                compression=args.compression or COMPRESSION,
                level=args.level,
                threads=args.threads,
                check=not args.force,
            )
        _say_what_is_missing(dump, args.target, image)
        return _tell(args, format, dump.verdict) if args.json else Exit.DONE


def _tell(args: argparse.Namespace, format: str, verdict: str | None, **more: object) -> int:
    """For programs. `verdict`: of the dump that was read, as far as it was."""
    facts = {"out": args.out, "format": format, "verdict": verdict, **more}
    return tell_facts("convert", facts)


def _is_store(path: str) -> bool:
    from livedumpfs.stores import takes_dumps

    return path != STANDARD and takes_dumps(path)


def _into_store(args: argparse.Namespace, format: str) -> int:
    """A dump of the store OUT, which is made where there is nothing."""
    from livedumpfs.dumpfile import open_dump, store_dump
    from livedumpfs.stores.receive import store_for_dump

    if format != "elf" or args.table:
        raise UsageError("a store takes dumps of format elf only")
    with open_dump(args.target, args.sidecar) as dump:
        store, is_new = store_for_dump(args.out)
        if is_new:
            note(f"made the store {store.url}")
        with store, display("convert") as shown:
            done = store_dump(dump, store, lambda now, total: shown.update(now, total, 0))
        _say_what_is_missing(dump, args.target, image=False)
        verdict = dump.verdict
    if args.json:
        record = done.record
        new_ones = {"new_chunks": record.new_chunks, "new_bytes": record.new_bytes}
        return _tell(args, format, verdict, dump=done.name, chunks=done.chunks, **new_ones)
    new = f"{text.count(done.record.new_chunks, 'new chunk')} of {done.chunks}"
    added = format_size(done.record.new_bytes)
    say(text.table([("dump", done.name), ("store", f"{new}, {added} added")]))
    return Exit.DONE


def _say_what_is_missing(dump: DumpFile, name: str, image: bool) -> None:
    from livedumpfs.dumpfile import missing_pages

    if dump.verdict != "consistent":
        pages = text.count(missing_pages(dump), "missing page")
        note(f"{name} is {dump.verdict}; {pages} {'written as zeros' if image else 'stay missing'}")


def _rearrange(args: argparse.Namespace) -> int:
    """Input in makedumpfile's flattened form becomes the file that it stands for; other formats
    need a second step."""
    from livedumpfs.dumpfile import NewFile, rearrange

    name = "standard input" if args.target == STANDARD else args.target
    if args.format not in ("elf", "kdump") or args.array or args.out == STANDARD:
        raise UsageError(
            f"what comes from {name} is a dump in makedumpfile's flattened form",
            hint="first make a file of it, with --format kdump, or elf if it is that",
        )
    _check_options(args, "the flattened form")
    with open_input(args.target) as file, NewFile(args.out) as out:
        rearrange(file.fileno(), name, out, args.format)
    return _tell(args, args.format, None) if args.json else Exit.DONE


def open_input(path: str) -> BinaryIO:
    """Open a file, or standard input."""
    return open(INPUT_FD if path == STANDARD else path, "rb", closefd=path != STANDARD)


def open_output(path: str) -> Output:
    """Make a new file, or use standard output."""
    from livedumpfs.dumpfile import NewFile, Stream

    if path != STANDARD:
        return NewFile(path)
    if os.isatty(OUTPUT_FD):
        raise UsageError("a dump does not go to a terminal", hint="name a file or a pipe")
    return Stream(OUTPUT_FD, "standard output")
