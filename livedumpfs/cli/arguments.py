# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands take, and how their values are written."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

from livedumpfs.units import parse_duration, parse_size

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]

FORMATS = ("elf", "raw", "kdump")
POLICIES = ("block", "fail", "spill")
ARMINGS = ("swap", "mprotect")
BACKENDS = ("sigsegv", "uffd")
COMPRESSIONS = ("zstd", "zlib", "lzo", "snappy", "none")
TABLES = ("sidecar", "tail")

TARGET_HELP = "block device, regular file or pipe; - for standard output"


def size(text: str) -> int:
    """Bytes, more than 0: "4096", "64K", "1GiB"."""
    try:
        value = parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if value <= 0:
        raise argparse.ArgumentTypeError(f"not a size above 0: {text!r}")
    return value


def share(text: str) -> float:
    """A part of the whole, above 0 up to 1: "0.25" or "25%"."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"not a share: {text!r} (write 0.25 or 25%)")
    return value


def natural(text: str) -> int:
    """A number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a number of 0 or more: {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """A time above 0, in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"not a time in seconds: {text!r}")
    return value


def age(text: str) -> float:
    """A time above 0, in seconds: "30", "30s", "5min", "2h"."""
    try:
        value = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"not a time above 0: {text!r}")
    return value


def add_command(
    commands: Commands, name: str, text: str, run: Run, *, aliases: tuple[str, ...] = ()
) -> argparse.ArgumentParser:
    """One command; `run` gets its arguments and returns its exit code."""
    summary = text.partition(".")[0]
    parser = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=text,
        aliases=aliases,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_device(parser: argparse.ArgumentParser) -> None:
    """`--device`: which host is meant."""
    parser.add_argument(
        "--device",
        metavar="HOST",
        help="its livedump file, its mount's directory, its pid or its name; default: "
        "LIVEDUMP_DEVICE, else the only running host of this user",
    )


def add_sidecar(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--sidecar`: the file that describes a raw dump."""
    parser.add_argument(
        "--sidecar",
        metavar="FILE",
        help="file that describes a raw dump; default: TARGET.ldfs, for a device in a state folder",
    )


def add_max_age(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """`--max-age`: when a snapshot counts as abandoned."""
    parser.add_argument(
        "--max-age",
        type=age,
        default=0,
        metavar="TIME",
        help="release the dump when nobody takes its next step for so long; default: never",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """What INIT can be told about the dump."""
    group = parser.add_argument_group("how to dump")
    group.add_argument("--format", choices=FORMATS, help="layout on the target; default: elf")
    group.add_argument(
        "--compress",
        choices=COMPRESSIONS,
        help="how kdump stores the memory; default: zstd",
    )
    group.add_argument(
        "--level",
        type=natural,
        default=0,
        metavar="N",
        help="of kdump's compression: zstd 1 to 22, zlib 1 to 9; default: 1",
    )
    group.add_argument(
        "--threads",
        type=natural,
        default=0,
        metavar="N",
        help="that compress and write a kdump, 1 to 64; default: one a CPU, at most 4",
    )
    group.add_argument(
        "--table",
        choices=TABLES,
        help="where a raw dump's granule table lies; default: in a sidecar file",
    )
    group.add_argument(
        "--policy", choices=POLICIES, help="what to do when no slot is free; default: block"
    )
    group.add_argument("--arming", choices=ARMINGS, help="how to write-protect; default: swap")
    group.add_argument(
        "--backend", choices=BACKENDS, help="who notices a store; default: as the machine has it"
    )
    group.add_argument(
        "--granule", type=size, default=0, metavar="SIZE", help="unit of protection and saving"
    )
    group.add_argument(
        "--pool", type=size, default=0, metavar="SIZE", help="memory for slots; default: 64 MiB"
    )
    group.add_argument(
        "--spill-limit",
        type=size,
        default=0,
        metavar="SIZE",
        help="memory for slots at the most under spill; default: 256 MiB, without a target more",
    )
    group.add_argument(
        "--sweep-rate",
        type=size,
        default=0,
        metavar="SIZE",
        help="bytes a second that the sweep may write",
    )
    group.add_argument(
        "--deadline",
        type=seconds,
        default=0,
        metavar="SECONDS",
        help="longest wait of a vCPU for a slot, after which pages are lost instead; default: 10",
    )
    add_max_age(group)
    add_sidecar(group)
    group.add_argument(
        "--buffered",
        action="store_true",
        help="write through the page cache, also where the target can be written past it",
    )
    group.add_argument(
        "--force", action="store_true", help="take a target that holds something else"
    )
