# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration streams, good and hostile: the memory that was sent, or one sentence; and never more
memory than the stream has."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from livedumpfs.formats.processors import PROCESSORS
from livedumpfs.machines.attach.description import read_devices
from livedumpfs.machines.attach.received_memory import RamBlock, ReceivedMemory
from livedumpfs.machines.attach.stream import CONTINUE, EOS, FOOTER, PAGE, ZERO, MigrationStream
from livedumpfs.machines.attach.vcpu_devices import read_vcpus, told_information
from livedumpfs.machines.attach.window import WINDOW, StreamError
from tests.fixtures import streams
from tests.fixtures.streams import PAGE_SIZE, Device, Sink

EXAMPLES = int(os.environ.get("LIVEDUMP_FUZZ_EXAMPLES", "100"))
ROOM = 4 * WINDOW
"""Bytes that reading a small stream may take: its window, and what goes round."""
PAGES = 12

SAMPLE = streams.whole(
    {"pc.ram": b"".join(bytes([i]) * PAGE_SIZE for i in range(PAGES)), "rom": b"r" * PAGE_SIZE},
    streams.vcpu(0, 3),
    streams.vcpu(1, 4),
    Device("vmcoreinfo", 0, [streams.number("vmcoreinfo.guest_format", 0, 2)]),
)
DEVICES = streams.devices(streams.vcpu(), Device("timer", 0, [streams.plain("x", b"12345")]))


def outcome(stream: bytes, most: int = 1 << 16) -> str:
    """The sentence; "" when it could be read."""
    blocks = [RamBlock("pc.ram", PAGES * PAGE_SIZE, 0)]
    try:
        with ReceivedMemory(blocks) as arena:
            devices = read_devices(MigrationStream(streams.source(stream, most), arena).read())
            arena.expect_whole()
        read_vcpus(devices, "x86_64")
        told_information(devices)
    except StreamError as error:
        return str(error)
    return ""


def expect_a_sentence(said: str) -> None:
    assert "\n" not in said and len(said) < 1000
    assert not said or said.startswith("QEMU's migration stream: ")


@st.composite
def guests(draw: st.DrawFn) -> tuple[dict[str, bytes], list[bytes]]:
    """Memory, and sections that bring all of it, in any order and number of times."""
    names = draw(st.lists(st.sampled_from(["a", "pc.ram", "/rom@x", "b" * 255]), min_size=1,
                          max_size=3, unique=True))  # fmt: skip
    sizes = {name: draw(st.integers(1, 6)) for name in names}
    every = [(name, at) for name, size in sizes.items() for at in range(size)]
    order = draw(st.permutations(every))
    order += draw(st.lists(st.sampled_from(every), max_size=8))
    memory = {name: bytearray(size * PAGE_SIZE) for name, size in sizes.items()}
    sections, pages, last = [], [], ""
    for name, at in order:
        value = draw(st.integers(0, 255))
        known = draw(st.booleans())
        block = "" if name == last else name
        content = bytes([value]) * PAGE_SIZE
        if known:
            pages.append(streams.filled(at * PAGE_SIZE, value, block))
        else:
            pages.append(streams.page(at * PAGE_SIZE, content, block))
        memory[name][at * PAGE_SIZE : (at + 1) * PAGE_SIZE] = content
        last = name
        if draw(st.booleans()):
            sections.append(streams.ram_part(*pages))
            pages = []
    sections.append(streams.ram_end(*pages))
    return {name: bytes(content) for name, content in memory.items()}, sections


@settings(max_examples=EXAMPLES)
@given(guests(), st.integers(1, 9000))
def test_what_was_sent_last_is_there(guest: Any, most: int) -> None:
    memory, sections = guest
    sink = Sink()
    stream = streams.whole(memory, parts=sections)
    MigrationStream(streams.source(stream, most), sink).read()
    assert {name: bytes(content) for name, content in sink.blocks.items()} == memory


@settings(max_examples=EXAMPLES)
@given(st.integers(0, len(SAMPLE) - 1))
def test_a_stream_that_ends_too_early(length: int) -> None:
    said = outcome(SAMPLE[:length])
    assert said
    expect_a_sentence(said)


@settings(max_examples=EXAMPLES)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.binary(min_size=1, max_size=9)),
                min_size=1, max_size=4))  # fmt: skip
def test_a_stream_with_other_bytes_in_it(changes: list[tuple[int, bytes]]) -> None:
    stream = bytearray(SAMPLE)
    for at, other in changes:
        stream[at : at + len(other)] = other
    expect_a_sentence(outcome(bytes(stream)))


def test_the_sample_is_good() -> None:
    assert outcome(SAMPLE) == ""


HEADS = st.sampled_from(
    [streams.head(), streams.head() + streams.configuration(),
     streams.head() + streams.ram_start({"pc.ram": PAGES * PAGE_SIZE})]
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, 0xFF, 0xFFF, 1 << 12, 1 << 31, (1 << 32) - 1, (1 << 63) - 1,
                           (1 << 64) - 1])  # fmt: skip
RECORDS = st.one_of(
    st.binary(max_size=32),
    st.builds(lambda n, f: streams.be((n & ~0xFFF | f) & ((1 << 64) - 1), 8), NUMBERS,
              st.sampled_from([PAGE, ZERO, EOS, PAGE | CONTINUE, ZERO | CONTINUE, 0x40])),
    st.builds(lambda n, size: streams.be(n & ((1 << 8 * size) - 1), size), NUMBERS,
              st.sampled_from([1, 4, 8])),
    st.sampled_from([streams.name("pc.ram"), streams.name("ram"), streams.footer(2),
                     bytes([FOOTER]), bytes(PAGE_SIZE), b"\1", b"\2\0\0\0\2", b"\4", b"\5", b"\7",
                     streams.vcpu().section(1)]),
)  # fmt: skip


@settings(max_examples=EXAMPLES)
@given(HEADS, st.lists(RECORDS, max_size=12))
def test_anything_else_and_no_more_memory_than_that(head: bytes, records: list[bytes]) -> None:
    tracemalloc.start()
    try:
        expect_a_sentence(outcome(head + b"".join(records)))
        assert tracemalloc.get_traced_memory()[1] < ROOM
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- descriptions that lie

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(["name", "size", "array_len", "struct", "fields", "subsections",
                         "instance_id", "devices", "vmsd_name"])  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """(object or list, key) of each value inside."""
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    else:
        return []
    return [(value, key) for key, _ in inside] + [
        place for _, one in inside for place in places(one)
    ]


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_a_description_that_lies(data: st.DataObject) -> None:
    def change(text: Any) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            found = places(text)
            if not found:
                return
            inside, key = found[data.draw(st.integers(0, len(found) - 1))]
            what = data.draw(st.sampled_from(["other", "gone", "more", "twice"]))
            if what == "other":
                inside[key] = data.draw(VALUES | NUMBERS)
            elif what == "gone":
                del inside[key]
            elif what == "more" and isinstance(inside, dict):
                inside[data.draw(NAMES)] = data.draw(VALUES | NUMBERS)
            elif isinstance(inside, list):
                inside.append(inside[key])

    expect_devices(streams.devices(streams.vcpu(), change=change))


@settings(max_examples=EXAMPLES)
@given(VALUES)
def test_any_json_as_a_description(value: Any) -> None:
    text = json.dumps(value).encode()
    expect_devices(streams.vcpu().section(1) + streams.description(text))


@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=64), st.integers(0, len(DEVICES) - 1))
def test_any_bytes_as_devices(other: bytes, at: int) -> None:
    expect_devices(DEVICES[:at] + other + DEVICES[at + len(other) :])
    expect_devices(other)


def expect_devices(rest: bytes) -> None:
    """They can be read, or one sentence says why not."""
    steps: list[Callable[[Any], object]] = [told_information]
    steps += [partial(read_vcpus, architecture=one.architecture) for one in PROCESSORS]
    for step in steps:
        try:
            step(read_devices(rest))
        except StreamError as error:
            expect_a_sentence(str(error))
