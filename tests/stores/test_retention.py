# SPDX-License-Identifier: GPL-2.0-or-later
"""Which dumps are kept, beside a second, slower statement of the rules; and, with LIVEDUMP_RESTIC,
what restic says of the same times (`make kill-points`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedumpfs.errors import UsageError
from livedumpfs.stores import DumpRecord, Retention, StoredDump, kept

RESTIC = "LIVEDUMP_RESTIC" in os.environ and shutil.which("restic")
DAY = 86400
BEGAN = 1_790_000_000


def dump(
    seconds: float, *, verdict: str = "consistent", machine: str = "m", host: str = "h"
) -> StoredDump:
    at = int(seconds * 10**9)
    record = DumpRecord(
        dump_id="0" * 32,
        verdict=verdict,
        machine=machine,
        host=host,
        instant_ns=at,  # type: ignore[arg-type]
    )
    return StoredDump(f"{at:020}-{machine}{host}", record, 0, at)


def names(*dumps: StoredDump) -> set[str]:
    return {one.name for one in dumps}


def test_the_last_ones() -> None:
    dumps = [dump(BEGAN + n) for n in range(10)]
    assert kept(dumps, Retention(last=3)) == {one.name: ["last"] for one in dumps[-3:]}
    assert kept(dumps, Retention(last=99)).keys() == names(*dumps)


def test_each_machine_for_itself() -> None:
    dumps = [
        dump(BEGAN + n, machine=machine, host=host)
        for n in range(4) for machine in "ab" for host in "xy"
    ]  # fmt: skip
    assert kept(dumps, Retention(last=1)).keys() == names(*dumps[-4:])


def test_those_within_a_time_of_the_newest() -> None:
    """Not of now: a machine that is gone keeps its last dumps."""
    dumps = [dump(BEGAN + n * 600) for n in range(10)]
    assert kept(dumps, Retention(within=1200)).keys() == names(*dumps[-3:])


def test_only_consistent_ones_count_unless_there_is_none() -> None:
    good = [dump(BEGAN + n * DAY) for n in range(3)]
    torn = [dump(BEGAN + n * DAY + 9, verdict="torn") for n in range(3)]
    dumps = [one for pair in zip(good, torn, strict=True) for one in pair]
    # The newest is torn and stays: nothing newer is there.
    assert kept(dumps, Retention(last=2)).keys() == names(good[1], good[2], torn[2])
    assert kept(torn, Retention(last=2)).keys() == names(*torn[1:])
    assert kept(dumps, Retention(within=2 * DAY)).keys() == names(*dumps)


def test_what_has_no_record_stays() -> None:
    foreign = StoredDump("foreign", None, 0, BEGAN)
    assert kept([foreign, dump(1), dump(2)], Retention(last=1))["foreign"] == ["no record"]


def test_no_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing says which dumps"):
        Retention().expect_a_rule()
    Retention(yearly=1).expect_a_rule()


times = st.lists(st.integers(BEGAN, BEGAN + 900 * DAY), min_size=1, max_size=60, unique=True)
counts = st.integers(0, 8)
KEYS = {
    "hourly": "%Y%m%d%H%z", "daily": "%Y%m%d", "weekly": "%G%V", "monthly": "%Y%m", "yearly": "%Y",
}  # fmt: skip


@given(times, counts, st.fixed_dictionaries(dict.fromkeys(KEYS, counts)))
def test_the_rules_once_more(moments: list[int], last: int, rules: dict[str, int]) -> None:
    """The newest of each period, by sets of periods; and the oldest where these are too few."""
    dumps = [dump(at) for at in sorted(moments)]
    expected = names(*dumps[-last:]) if last else set()
    for rule, form in KEYS.items():
        newest = {
            datetime.fromtimestamp(one.taken_ns // 10**9).astimezone().strftime(form): one
            for one in dumps
        }
        chosen = sorted(newest.values(), key=lambda one: one.taken_ns)[-rules[rule] :]
        if rules[rule]:
            expected |= names(*chosen)
            expected |= names(dumps[0]) if len(newest) < rules[rule] else set()
    assert kept(dumps, Retention(last=last, **rules)).keys() == expected


def some_times() -> Iterator[datetime]:
    """Of some years, close together at the end."""
    moment = datetime(2026, 3, 1, 12, 0).astimezone()
    for step in (60, 600, 3600, 5 * 3600, DAY, 5 * DAY, 20 * DAY, 100 * DAY):
        for _ in range(5):
            yield moment
            moment -= timedelta(seconds=step)


@pytest.mark.skipif(not RESTIC, reason="needs restic, and takes long: make kill-points")
def test_as_restic(tmp_path: Path) -> None:
    """`restic forget --dry-run` of empty snapshots of the same times, in one go."""
    environment = {
        **os.environ, "RESTIC_REPOSITORY": str(tmp_path / "repository"), "RESTIC_PASSWORD": "x",
        "XDG_CACHE_HOME": str(tmp_path / "cache"), "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
    }  # fmt: skip

    def restic(*words: str) -> str:
        done = subprocess.run(
            ["restic", "--quiet", *words], env=environment, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    restic("init")
    (tmp_path / "file").write_text("x")
    moments = list(some_times())[::2]
    for moment in moments:
        stamp = moment.strftime("%Y-%m-%d %H:%M:%S")
        restic("backup", "--host", "h", "--time", stamp, str(tmp_path / "file"))
    rules = {"last": 2, "hourly": 3, "daily": 4, "weekly": 3, "monthly": 5, "yearly": 9}
    words = [word for rule, count in rules.items() for word in (f"--keep-{rule}", str(count))]
    [group] = json.loads(restic("forget", "--dry-run", "--json", *words))
    theirs = {datetime.fromisoformat(one["time"]).timestamp() for one in group["keep"]}
    dumps = [dump(moment.timestamp()) for moment in moments]
    ours = kept(dumps, Retention(**rules))
    assert {one.taken_ns / 10**9 for one in dumps if one.name in ours} == theirs
    assert 0 < len(theirs) < len(moments)
