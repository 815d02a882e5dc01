# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree of a host's mount over a control that says what a test wants."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from livedumpfs.control import Caller, Shown
from livedumpfs.formats import MachineInfo
from livedumpfs.formats.snapshot_files import ImageFile, SnapshotFiles, standard_images
from livedumpfs.mount.hosttree import HostTree

PAGE = 4096
CALLER = Caller(0, 0, 7)
INFO, NEXT_INFO = "dumps/1/info.json", "dumps/2/info.json"


@dataclass
class FakeControl:
    """Files, and a dump that may be there."""

    said: dict[str, str] = field(
        default_factory=lambda: {"control/policy": "block", "machine/x": ""}
    )
    info: dict[str, object] = field(default_factory=lambda: {"state": "start", "counters": 1})
    shown: Shown | None = None
    memory: Any = field(default_factory=lambda: SimpleNamespace(size=9 * PAGE, stored=2 * PAGE))

    def names(self) -> tuple[str, ...]:
        return (*self.said, "mem")

    def writable(self, name: str) -> bool:
        return name == "control/policy"

    def snapshot(self) -> Shown | None:
        return self.shown

    def read(self, name: str, caller: Caller, *, keep_error: bool = True) -> bytes:
        if self.said[name] == "broken":
            raise OSError(errno.EIO, "the machine does not answer")
        return self.said[name].encode()

    def start(self, number: int, instant: int) -> None:
        images = standard_images(MachineInfo.flat("test", 2 * PAGE), 2 * PAGE)
        files = SnapshotFiles(
            images, partial(ImageFile, read=lambda at, view: None), lambda: self.info
        )
        self.shown = Shown(files, number, instant, instant)


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def tree(control: FakeControl) -> HostTree:
    return HostTree(control, 0)  # type: ignore[arg-type]


def test_counters_do_not_make_info_another_file_and_all_else_does(
    control: FakeControl, tree: HostTree
) -> None:
    control.start(1, 1000)
    first = tree.attributes(INFO, CALLER)
    assert first.changed_ns == 1000 and first.size == len(json.dumps(control.info, indent=1)) + 1
    control.info["counters"] = 123_456
    second = tree.attributes(INFO, CALLER)
    assert (second.changed_ns, second.size) == (1000, first.size + 5)
    control.info["lost"] = [[1, 2]]
    third = tree.attributes(INFO, CALLER)
    assert third.changed_ns > 1000 and third.number == first.number
    control.start(2, 2000)
    assert tree.attributes(NEXT_INFO, CALLER).changed_ns == 2000
    with pytest.raises(FileNotFoundError):
        tree.attributes(INFO, CALLER)


def test_a_file_that_cannot_be_read_has_attributes_all_the_same(
    control: FakeControl, tree: HostTree
) -> None:
    """stat does not fail because the machine does not answer."""
    control.said["machine/x"] = "ten bytes!"
    before = tree.attributes("machine/x", CALLER)
    assert before.size == 10
    control.said["machine/x"] = "broken"
    assert tree.attributes("machine/x", CALLER) == before
    opened = tree.open("machine/x", Caller(0, 0, 8))
    with pytest.raises(OSError, match="does not answer"):
        tree.content(opened, Caller(0, 0, 8))


def test_what_a_stat_counted_is_read_and_nothing_older_than_a_step(
    control: FakeControl, tree: HostTree
) -> None:
    opened = tree.open("machine/x", CALLER)
    control.said["machine/x"] = "long ago"
    size = tree.attributes("machine/x", CALLER).size
    control.said["machine/x"] = "now"
    assert len(tree.content(opened, CALLER)) == size
    assert tree.content(opened, CALLER) == b"now"
    for told in (False, True):
        tree.attributes("machine/x", CALLER)
        with tree.changing(Caller(0, 0, 9), told=told):
            control.said["machine/x"] = f"then {told}"
        assert tree.content(opened, CALLER) == f"then {told}".encode()


def test_info_of_a_dump_that_has_gone_is_not_that_of_the_next(
    control: FakeControl, tree: HostTree
) -> None:
    control.start(1, 1000)
    opened = tree.open(INFO, CALLER)
    tree.attributes(INFO, CALLER)
    gone = opened.make

    def make(caller: Caller) -> bytes:
        raise OSError(errno.ENODATA, "released")

    object.__setattr__(opened, "make", make)
    with pytest.raises(OSError, match="released"):
        tree.content(opened, CALLER)
    object.__setattr__(opened, "make", gone)
    assert json.loads(tree.content(opened, CALLER)) == control.info


def test_the_root_changes_when_a_dump_comes_goes_and_is_another(
    control: FakeControl, tree: HostTree
) -> None:
    times = [tree.attributes("", CALLER).changed_ns]
    for act in (
        lambda: control.start(1, 1),
        lambda: control.start(2, 2),
        lambda: setattr(control, "shown", None),
    ):
        act()
        times.append(tree.attributes("", CALLER).changed_ns)
        assert tree.attributes("", CALLER).changed_ns == times[-1]
    assert times == sorted(set(times))
    with pytest.raises(FileNotFoundError):
        tree.attributes(INFO, CALLER)


def test_statfs_looks_at_nothing(control: FakeControl, tree: HostTree) -> None:
    control.said["machine/x"] = "broken"
    # Root, control, machine, dumps, two files, mem; a block for each file that was not looked at.
    assert tree.totals() == (7, 2 + 1 + 1)
    control.start(1, 1)
    # Besides: dumps/1, snapshot, vmcore (with a page of headers), mem.raw, mem.lime (with one),
    # info.json.
    assert tree.totals() == (13, 4 + 3 + 2 + 3 + 1)
