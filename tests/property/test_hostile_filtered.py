# SPDX-License-Identifier: GPL-2.0-or-later
"""Damaged and hostile files of `dump --exclude`: info and verify say one sentence, and never call a
file right that is not as makedumpfile wrote it.

LIVEDUMP_FUZZ_EXAMPLES raises the number of examples for a long run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livedumpfs.cli.main import main
from livedumpfs.dumpfile.filtered_file import _PASSED_ON
from livedumpfs.formats import kdump, superblock
from livedumpfs.formats.filtered import SealRecord
from livedumpfs.formats.superblock import Superblock
from tests.fixtures.makedumpfiles import small_filtered

EXAMPLES = int(os.environ.get("LIVEDUMP_FUZZ_EXAMPLES", "60"))
META = {"policy": "block", "excluded": {"of": 14, "all": 7}, "makedumpfile": "1.7.2"}
ERROR = "livedump: error: "
Sample = tuple[bytes, Superblock]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = tmp_path_factory.mktemp("sample") / "dump"
    block = small_filtered(path, **META)
    return path.read_bytes(), block


def livedump(*words: str) -> int:
    """Exit code of a command; 0 without an error, else with one sentence."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    lines = err.getvalue().splitlines()
    errors = [line for line in lines if line.startswith(ERROR)]
    assert len(errors) == (code != 0) and lines[-1:] == (errors or lines[-1:]), lines
    assert code in (0, 1, 3), lines
    assert all(one.isprintable() or one == "\n" for one in out.getvalue())
    if "--json" in words and out.getvalue():
        json.loads(out.getvalue())
    return code


def verified(content: bytes) -> bool:
    """After all commands that read such a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dump"
        path.write_bytes(content)
        livedump("info", str(path))
        livedump("info", "--json", str(path))
        assert livedump("compare", str(path), str(path)) != 0
        return livedump("verify", str(path)) == 0


def test_the_sample_is_right(sample: Sample) -> None:
    assert verified(sample[0])


def places(sample: Sample) -> st.SearchStrategy[int]:
    """Offsets, more often where something is written."""
    content, block = sample
    starts = [0, kdump.BLOCK, 2 * kdump.BLOCK, block.superblock_offset - 1000]
    starts += [block.superblock_offset, block.meta_offsets[0]]
    near = st.sampled_from(starts).flatmap(lambda at: st.integers(at, at + 500))
    return (near | st.integers(0, len(content) - 1)).map(lambda at: min(at, len(content) - 1))


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_flipped_bytes(sample: Sample, data: st.DataObject) -> None:
    content, block = sample
    damaged = bytearray(content)
    for at in data.draw(st.lists(places(sample), min_size=1, max_size=3)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    changed = bytes(damaged)
    if verified(changed):
        end = block.superblock_offset + superblock.SIZE
        assert changed[:end] == content[:end]
        meta = slice(block.meta_offsets[0], block.meta_offsets[0] + block.meta_length)
        assert changed[meta] == content[meta]


@settings(max_examples=EXAMPLES // 2)
@given(data=st.data())
def test_truncated_files(sample: Sample, data: st.DataObject) -> None:
    assert not verified(sample[0][: data.draw(places(sample))])


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_superblocks_of_any_numbers_with_a_good_checksum(
    sample: Sample, data: st.DataObject
) -> None:
    content, block = sample
    fields = vars(block)
    names = [name for name, value in fields.items() if type(value) is int]
    numbers = st.integers(0, 1 << 20).map(lambda n: n * 4096) | st.sampled_from(
        [0, 1, 511, len(content), (1 << 32) - 1, 1 << 40, (1 << 62) - 1, 1 << 63, (1 << 64) - 1]
    )
    drawn = st.sampled_from(names)
    lies = {name: data.draw(numbers) for name in data.draw(st.lists(drawn, min_size=1, max_size=3))}
    if data.draw(st.booleans()):
        lies["meta_offsets"] = (data.draw(numbers), data.draw(numbers))
    lies["meta_current"] = lies.get("meta_current", 0) & 1
    if "meta_length" in lies:
        lies["meta_length"] &= 0xFFFFFFFF
    end = block.superblock_offset + superblock.SIZE
    lying = replace(block, **lies).pack()
    verified(content[: block.superblock_offset] + lying + content[end:])


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_heads_of_any_numbers(sample: Sample, data: st.DataObject) -> None:
    """Of makedumpfile's header and sub header, four or eight bytes long."""
    content = sample[0]
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from([*range(424, 464, 4), *range(4096, kdump.HEAD_SIZE, 8)]))
        size = data.draw(st.sampled_from([4, 8]))
        changed[at : at + size] = data.draw(
            st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\1" + b"\0" * 7, b"\0" * 7 + b"\x80"])
            | st.binary(min_size=8, max_size=8)
        )[:size]
    assert not verified(bytes(changed)) or changed == content


texts = st.text(max_size=8)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(texts, part, max_size=3),
    max_leaves=8,
)
KNOWN = {
    "instant": ("wall_ns", "mono_ns"),
    "excluded": ("of", "all", "zero", "free"),
    "counters": ("granule_size", "slots_most", "slots_peak", "stall_max_ns", "quiesce_ns"),
    "machine": ("name", "left_out"),
}


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_record_that_says_anything(sample: Sample, data: st.DataObject) -> None:
    """All is in order but what it says."""
    meta = data.draw(st.dictionaries(st.sampled_from(_PASSED_ON), values))
    for name in data.draw(st.lists(st.sampled_from([*KNOWN]), max_size=2)):
        meta[name] = data.draw(st.dictionaries(st.sampled_from(KNOWN[name]), values, min_size=1))
    content, block = sample
    record = SealRecord(block.superblock_offset, b"").seal(
        meta, dump_id=block.dump_id, verdict="consistent",
        sizes=(block.arena_size, block.granule_size), checksum=block.header_checksum,
    )  # fmt: skip
    assert verified(content[: block.superblock_offset] + record)
