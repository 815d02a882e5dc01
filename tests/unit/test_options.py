# SPDX-License-Identifier: GPL-2.0-or-later
"""One table of options: a new one is a row, and each interface is as the rows say."""

from __future__ import annotations

import argparse
import ctypes
import enum
import errno
import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pytest

from livedumpfs import abi, settings
from livedumpfs.cli import arguments
from livedumpfs.cli.main import build_parser
from livedumpfs.client import InitOptions
from livedumpfs.control import Caller, Control
from livedumpfs.control import settings_files as control
from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import ffi, lib
from livedumpfs.dump import LiveDump
from livedumpfs.dump.core_dump import CoreFiles, core_config
from livedumpfs.errors import MachineError, UsageError, WrongType, in_python
from livedumpfs.kinds import Choice, FilePath, Flag, Size
from livedumpfs.option import Option, option, rows_of
from livedumpfs.request import fill_init, fill_status, read_init, read_status
from livedumpfs.settings import FORMATS, OPTION, OPTIONS, DumpSettings
from tests.fixtures.program_files import program_command

TOP = Path(__file__).resolve().parents[2]
Colour = Literal["red", "green"]


@dataclass(frozen=True)
class More(DumpSettings):
    """Two options that there are not, and nothing else is changed for them."""

    colour: Colour = option(
        "red", Choice(get_args(Colour)), "how it glows", ioctl="colour", status="colour",
        formats=("kdump",),
    )  # fmt: skip
    glow_rate: int = option(
        0, Size(unit="photons"), "photons at the most", flag="--glow", usual="as many as there are",
        ioctl="glow_rate",
    )  # fmt: skip


class Request(ctypes.Structure):
    """Members of a struct are a promise to C programs: these are what a developer adds by
    hand."""

    _fields_ = (*abi.Init._fields_, ("colour", ctypes.c_uint32), ("glow_rate", ctypes.c_uint64))


ROWS = rows_of(More)


def test_a_row_is_an_option_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    arguments.add_settings(parser, ROWS)
    args = parser.parse_args(["--colour", "green", "--glow", "1K"])
    assert (args.colour, args.glow_rate) == ("green", 1024)
    said = " ".join(parser.format_help().split())
    assert "--colour {red,green} how it glows; default: red" in said
    assert "--glow SIZE photons at the most; default: as many as there are" in said
    for wrong in (["--colour", "blue"], ["--glow", "bright"], ["--glow", "0"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
    assert "not a size above 0: '0'" in capsys.readouterr().err


def test_a_row_is_a_file_of_control() -> None:
    assert {*control.names(More)} - {*control.names()} == {"colour", "glow_rate"}
    now = control.Settings(More())
    now = control.change(now, "colour", "green")
    now = control.change(now, "glow_rate", "4K")
    assert now.dump == More(colour="green", glow_rate=4096)
    assert (control.show(now, "colour"), control.show(now, "glow_rate")) == ("green\n", "4096\n")
    with pytest.raises(UsageError, match="control/colour: 'blue' is none of red, green"):
        control.change(now, "colour", "blue")
    with pytest.raises(UsageError, match="of 9999999999999999999 photons is not possible"):
        control.change(now, "glow_rate", "9999999999999999999")


def test_a_row_is_a_member_of_the_typed_init() -> None:
    request: Any = Request(version=abi.VERSION)
    asked = InitOptions(rows=ROWS, format="kdump", colour="green", glow_rate=7, force=True)
    asked.fill(request)
    assert (request.format, request.colour, request.glow_rate) == (3, 2, 7)
    assert request.flags == abi.InitFlag.FORCE
    found = control.from_init(control.Settings(More(pool=8192)), request).dump
    assert found == More(format="kdump", colour="green", glow_rate=7, force=True, pool=8192)
    request.format = abi.Format.RAW
    with pytest.raises(UsageError, match="INIT: colour green does not go with format raw"):
        control.from_init(control.Settings(More()), request)
    request.colour = 3
    with pytest.raises(UsageError, match="INIT: there is no colour 3") as caught:
        control.from_init(control.Settings(More()), request)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(TypeError, match="INIT has no colour, glow_rate"):
        InitOptions(colour="green", glow_rate=7)


def test_a_row_is_checked_like_the_others() -> None:
    assert More().colour == "red"
    for values, why in (
        ({"colour": "blue"}, "unknown colour 'blue' (one of red, green)"),
        ({"colour": "green"}, "colour green does not go with format elf (format kdump has it)"),
        ({"glow_rate": -1}, "a glow rate of -1 photons is not possible"),
        ({"glow_rate": "x"}, "glow_rate must be a whole number, not 'x'"),
    ):
        with pytest.raises(UsageError, match=re.escape(why)):
            More(**values).check()  # type: ignore[arg-type]
    assert More(colour="green").fitted() == More()
    assert More(format="kdump", colour="green").fitted().colour == "green"


# ------------------------------------------------------------------------- the rows


def test_every_setting_is_a_row() -> None:
    assert [one.name for one in OPTIONS] == [one.name for one in fields(DumpSettings)]


def members(struct: type[ctypes.Structure]) -> set[str]:
    return {one[0] for one in struct._fields_}


def test_members_are_those_of_the_structs() -> None:
    core = {name for name, _ in ffi.typeof("ldfs_dump_config").fields}
    for one in OPTIONS:
        flag = isinstance(one.kind, Flag)
        there = abi.InitFlag.__members__ if flag else members(abi.Init)
        assert one.ioctl is None or one.ioctl in there, one.name
        assert one.status is None or one.status in members(abi.Status), one.name
        assert one.core is None or one.core in core, one.name


def test_each_member_of_a_typed_init_is_a_row() -> None:
    rows = {one.ioctl for one in OPTIONS}
    assert members(abi.Init) - rows == {"version", "flags", "reserved", "path"}
    assert set(abi.InitFlag.__members__) - rows == {"RELEASE_ON_CLOSE", "NO_TARGET"}


@pytest.mark.parametrize(
    "one", [o for o in OPTIONS if isinstance(o.kind, Choice)], ids=lambda o: o.name
)
def test_numbers_of_choices_are_those_of_c(one: Option) -> None:
    """In both interfaces, and the words are those that type checkers know."""
    kind = one.kind
    assert isinstance(kind, Choice)
    name = "".join(part.capitalize() for part in one.name.split("_"))
    literal = getattr(settings, name)
    assert get_args(literal) == kind.words
    if not one.ioctl:
        return
    numbers: type[enum.IntEnum] = getattr(abi, name)
    assert {word.upper(): kind.to_ioctl(word) for word in kind.words} == {
        name: int(member) for name, member in numbers.__members__.items()
    }
    if one.core:
        prefix = {"arming": "ARM"}.get(one.name, one.name.upper())
        for word in kind.words:
            assert getattr(lib, f"LDFS_{prefix}_{word.upper()}") == kind.to_core(word)


SOME = DumpSettings(
    format="kdump", policy="spill", arming="mprotect", backend="uffd", granule=8192, pool=16384,
    spill_limit=65536, at_limit="hold", sweep_rate=5, stall_deadline=0.5, quiesce_deadline=0.25,
    init_deadline=3.5, force=True, buffered=True, table="tail", compression="zlib", level=9,
    threads=3, max_age=2.5, cpu_notes="on", track=True,
)  # fmt: skip
"""Nothing as usual."""


def test_what_an_init_says_arrives() -> None:
    request = abi.Init(version=abi.VERSION)
    values = {one.name: getattr(SOME, one.name) for one in OPTIONS}
    fill_init(request, values)
    told = {one.name for one in OPTIONS if one.ioctl and not isinstance(one.kind, FilePath)}
    assert read_init(request) == {name: values[name] for name in told}
    untold = {"quiesce_deadline", "init_deadline", "sidecar", "cpu_notes", "track"}
    assert {one.name for one in OPTIONS} - told == untold
    assert read_init(abi.Init()) == {}


def test_what_status_says_arrives() -> None:
    status = abi.Status()
    fill_status(status, SOME)
    found = read_status(status)
    assert found == {one.name: getattr(SOME, one.name) for one in OPTIONS if one.status}
    assert {"policy", "level", "threads", "table", "max_age"} < found.keys()
    assert read_status(abi.Status())["backend"] is None


def test_what_the_core_is_told() -> None:
    config, _ = core_config(SOME, None, CoreFiles())
    assert (config.policy, config.arming, config.backend) == (2, 1, 1)
    assert (config.granule_size, config.pool_size, config.spill_limit) == (8192, 16384, 65536)
    assert (config.sweep_rate, config.stall_deadline_ns, config.level) == (5, 500_000_000, 9)
    assert not config.target_direct and config.track


def test_a_file_shows_what_it_takes() -> None:
    now, usual = control.Settings(SOME), control.Settings(DumpSettings(compression="zlib"))
    for one in OPTIONS:
        if one.file == one.name:
            written = control.show(now, one.file).removesuffix("\n")
            again = control.change(usual, one.file, written)
            assert getattr(again.dump, one.name) == getattr(SOME, one.name), one.name


def test_flags_are_switches_in_hints() -> None:
    for one in OPTIONS:
        assert in_python(one.name).endswith("=True") == isinstance(one.kind, Flag), one.name


def test_a_path_is_no_type_error_but_numbers_are() -> None:
    hints = get_type_hints(DumpSettings, {**vars(settings)})
    assert set(hints) == {one.name for one in OPTIONS}
    for one in OPTIONS:
        if not isinstance(one.kind, FilePath):
            with pytest.raises(WrongType, match=f"{one.name} must be {one.kind.called}"):
                replace(DumpSettings(), **{one.name: object()}).check()


def test_a_deadline_of_control_is_that_of_start() -> None:
    caller = Caller(os.geteuid(), os.getegid(), threading.get_native_id())
    with Arena(1 << 20) as arena, LiveDump(arena, quiesce=lambda: time.sleep(0.02)) as live:
        host = Control(live.machine, live)
        for name, value in (("type", b"none"), ("quiesce_deadline", b"0.001"), ("state", b"1")):
            host.write(f"control/{name}", value, caller)
        with pytest.raises(MachineError) as caught:
            host.write("control/state", b"2", caller)
        assert caught.value.errno == errno.ETIMEDOUT
        said = host.read("control/error", caller).decode()
        assert "did not stop in time (a longer control/quiesce_deadline gives it more time)" in said
        host.write("control/state", b"5", caller)
        host.write("control/quiesce_deadline", b"60", caller)
        for step in (b"1", b"2", b"5"):
            host.write("control/state", step, caller)


# ------------------------------------------------------------------- the command line


def dump_options(command: str) -> list[str]:
    parser = next(
        action.choices[command]
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    group = next(one for one in parser._action_groups if one.title == "how to dump")
    return [action.option_strings[0] for action in group._group_actions]


def test_a_client_has_the_options_that_it_can_say() -> None:
    every = [one.flag for one in OPTIONS]
    for command in ("host", "qemu", "attach"):
        assert dump_options(command) == every
    for command in ("dump", "init"):
        assert dump_options(command) == [one.flag for one in OPTIONS if one.ioctl]
    untold = {"--quiesce-deadline", "--init-deadline", "--cpu-notes", "--track"}
    assert {*every} - {*dump_options("dump")} == untold


def test_the_command_line_reads_the_table_without_the_rest() -> None:
    """What a person waits for at every command."""
    for words in (["--help"], ["dump", "--help"]):
        command = program_command(__file__, "parsed_arguments.py", *words)
        environment = {**os.environ, "PYTHONPATH": str(TOP)}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=True, env=environment
        )
        loaded = done.stderr.split()
        assert "livedumpfs.settings" in loaded and "usage: " in done.stdout
        heavy = {"numpy", "livedumpfs._native", "livedumpfs.dump", "livedumpfs.client"}
        assert not heavy & {*loaded}


def test_formats_of_options_are_formats() -> None:
    for one in OPTIONS:
        assert {*one.formats} <= {*FORMATS}, one.name
    assert OPTION["level"].goes_with("kdump") and not OPTION["level"].goes_with("raw")
    assert OPTION["pool"].goes_with("raw")
