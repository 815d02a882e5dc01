# SPDX-License-Identifier: GPL-2.0-or-later
"""INIT under the id of an older dump on the same target: whenever the host dies in it, no page of
the older one is taken for the new one's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.cli.main import main as livedump
from livedumpfs.dump import DumpSettings, preparation
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import InvalidDump
from tests.fixtures.loop_devices import LoopMaker

DEADLINE_S = 300.0
MIB = 1 << 20
WISHED = bytes(range(16))


def whole(live: LiveDump, path: str, settings: DumpSettings) -> None:
    live.init(path, settings, dump_id=WISHED)
    live.start()
    live.sweep()
    assert live.finish(DEADLINE_S) == "consistent"
    live.release()


def shown(path: Path) -> str:
    """What is read of the first page: "nothing", or the bytes."""
    try:
        with open_dump(path) as dump:
            assert dump.verdict == "incomplete"
            return dump.read_arena(0, 4).hex()
    except (InvalidDump, OSError):
        return "nothing"


@pytest.mark.parametrize("form", ["elf", "raw", "kdump"])
def test_a_host_that_dies_in_init(
    loop_device: LoopMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Copies of the device say what a death at that moment leaves. A file is emptied before."""
    target = loop_device(8 * MIB)
    settings = DumpSettings(format=form, force=True)  # type: ignore[arg-type]
    if form == "raw":
        settings = DumpSettings(format="raw", table="tail", force=True)
    real, seen = preparation.make_core, []

    def copied(name: str) -> None:
        copy = tmp_path / name
        copy.write_bytes(Path(target).read_bytes())
        seen.append(shown(copy))

    def dying(*arguments: Any, **more: Any) -> Any:
        copied("before the table")
        core = real(*arguments, **more)
        copied("after the table")
        return core

    with Arena(MIB) as arena, LiveDump(arena) as live:
        filled = arena.array("u1", (MIB // 2,), name="bytes")
        filled[:] = 0x11
        whole(live, target, settings)
        with open_dump(target) as dump:
            assert dump.read_arena(0, 4).hex() == "11111111"
        filled[:] = 0x22
        monkeypatch.setattr(preparation, "make_core", dying)
        live.init(target, settings, dump_id=WISHED)
        copied("after INIT")
        assert seen == ["nothing"] * 3
        live.release()
        monkeypatch.undo()
        whole(live, target, settings)
        with open_dump(target) as dump:
            assert dump.superblock.dump_id == WISHED
            assert dump.read_arena(0, 4).hex() == "22222222"


def test_an_init_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core is there already when the id cannot be written."""

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with Arena(MIB) as arena, LiveDump(arena) as live:
        monkeypatch.setattr(preparation.DumpFiles, "opened", failing)
        with pytest.raises(OSError, match="Input/output error"):
            live.init(str(tmp_path / "target"), dump_id=WISHED)
        assert not list(tmp_path.iterdir())
        monkeypatch.undo()
        whole(live, str(tmp_path / "target"), DumpSettings())


def test_a_pipe_has_the_wished_id_at_once(tmp_path: Path) -> None:
    """What goes through it cannot be written twice, and nothing older lies there."""
    read_end, write_end = os.pipe()
    with Arena(MIB) as arena, LiveDump(arena) as live:
        target = tmp_path / "target"
        with open(target, "wb") as file:
            reader = subprocess.Popen(["cat"], stdin=read_end, stdout=file)
        os.close(read_end)
        try:
            whole(live, f"/proc/self/fd/{write_end}", DumpSettings(format="kdump"))
        finally:
            os.close(write_end)
            reader.communicate(timeout=DEADLINE_S)
        whole_dump = tmp_path / "dump"  # the target is in makedumpfile's flattened form
        assert livedump(["convert", str(target), str(whole_dump), "--format", "kdump"]) == 0
        with open_dump(whole_dump) as dump:
            assert dump.superblock.dump_id == WISHED and dump.verdict == "consistent"
