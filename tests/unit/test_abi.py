# SPDX-License-Identifier: GPL-2.0-or-later
"""abi.py against native/livedump_ioctl.h: a compiled C program says what is right."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs import abi
from tests.fixtures.program_files import program_file

NATIVE = Path(__file__).resolve().parents[2] / "native"
STRUCTS: dict[str, type[ctypes.Structure]] = {
    "livedump_init": abi.Init,
    "livedump_status": abi.Status,
    "livedump_sweep": abi.Sweep,
    "livedump_failure": abi.Failure,
    "livedump_init_id": abi.InitId,
    "livedump_instant": abi.StepRequest,
    "livedump_status_id": abi.StatusId,
}
COMMANDS = {
    "START": abi.START,
    "SWEEP": abi.SWEEP,
    "INIT": abi.INIT,
    "RELEASE": abi.RELEASE,
    "INIT_TYPED": abi.INIT_TYPED,
    "STATUS": abi.STATUS,
    "SWEEP_TYPED": abi.SWEEP_TYPED,
    "INIT_ID": abi.INIT_ID,
    "START_TYPED": abi.START_TYPED,
    "HOLD": abi.HOLD,
    "ARM": abi.ARM,
    "GO": abi.GO,
    "SWEEP_ID": abi.SWEEP_ID,
    "RELEASE_ID": abi.RELEASE_ID,
    "STATUS_ID": abi.STATUS_ID,
}
ENUMS = {
    "STATE": abi.State,
    "POLICY": abi.Policy,
    "FORMAT": abi.Format,
    "COMPRESSION": abi.Compression,
    "TABLE": abi.Table,
    "AT_LIMIT": abi.AtLimit,
    "ENDED": abi.Ended,
    "OPERATION": abi.Operation,
    "ARMING": abi.Arming,
    "BACKEND": abi.Backend,
    "VERDICT": abi.Verdict,
    "INIT": abi.InitFlag,
    "SWEEP": abi.SweepFlag,
    "ANSWER": abi.AnswerFlag,
    "STEP": abi.StepFlag,
}


def expected() -> Iterator[tuple[str, int]]:
    """C expressions, and what Python holds for them."""
    for struct, python in STRUCTS.items():
        yield f"sizeof(struct {struct})", ctypes.sizeof(python)
        for field in python._fields_:
            member = getattr(python, field[0])
            yield f"offsetof(struct {struct}, {field[0]})", member.offset
            yield f"sizeof(((struct {struct} *)0)->{field[0]})", member.size
    for name, number in COMMANDS.items():
        yield f"LIVEDUMP_IOC_{name}", number
    for prefix, enum in ENUMS.items():
        for one in enum:
            yield f"LIVEDUMP_{prefix}_{one.name}", int(one)
    yield "LIVEDUMP_ABI_VERSION", abi.VERSION
    yield "LIVEDUMP_PATH_MAX", abi.PATH_MAX
    yield "LIVEDUMP_POOL_AUTO", abi.POOL_AUTO
    yield "LIVEDUMP_NO_PFN", abi.NO_PFN
    yield "LIVEDUMP_HOLD_MOST_NS", abi.HOLD_MOST_NS
    yield "LIVEDUMP_AHEAD_MOST_NS", abi.AHEAD_MOST_NS
    yield "LIVEDUMP_LATE_NS", abi.LATE_NS


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_layout_is_that_of_the_compiled_header(tmp_path: Path) -> None:
    pairs = list(expected())
    (tmp_path / "values.h").write_text("".join(f"VALUE({c})\n" for c, _ in pairs))
    made = tmp_path / "layout"
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Wpadded", "-Werror", "-I", NATIVE, "-I", tmp_path,
         "-o", made, program_file(__file__, "abi_values.c")],
        check=True,
    )  # fmt: skip
    found = subprocess.run([made], check=True, capture_output=True, text=True).stdout.split()
    assert dict(zip((c for c, _ in pairs), map(int, found), strict=True)) == dict(pairs)


def test_no_name_of_the_header_is_missing_here() -> None:
    text = (NATIVE / "livedump_ioctl.h").read_text()
    defined = set(re.findall(r"^#define (LIVEDUMP_\w+)", text, re.MULTILINE)) - {"LIVEDUMP_IOCTL_H"}
    known = {c for c, _ in expected()}
    assert defined - known == set()


def test_operations_are_those_of_the_core() -> None:
    from livedumpfs.core.capi import lib

    core = {name.removeprefix("LDFS_OP_") for name in dir(lib) if name.startswith("LDFS_OP_")}
    assert core == {one.name for one in abi.Operation}
    assert all(getattr(lib, f"LDFS_OP_{one.name}") == one for one in abi.Operation)


def test_numbers_of_the_kernel_patches() -> None:
    assert (abi.START, abi.SWEEP, abi.INIT, abi.RELEASE) == (0xFF01, 0xFF02, 0xFF64, 0xFF65)


def test_payload_size_is_what_the_number_says() -> None:
    assert abi.payload_size(abi.INIT_TYPED) == ctypes.sizeof(abi.Init)
    assert abi.payload_size(abi.START) == 0


def test_sizes_are_those_of_programs_that_were_built_before() -> None:
    """Members were added in what was reserved: numbers and offsets stay as they were."""
    assert ctypes.sizeof(abi.Init) == 24 + 9 * 8 + 2 * abi.PATH_MAX
    assert ctypes.sizeof(abi.Status) == 24 + 16 + 20 * 8 + 16 + 8 * 8 + abi.PATH_MAX
    assert abi.offset_of(abi.Init, "path") == 96
    assert abi.offset_of(abi.Status, "target") == 280
