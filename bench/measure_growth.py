# SPDX-License-Identifier: GPL-2.0-or-later
"""How the stop, the time of a dump and its memory grow with RAM, with the rate of stores, and with
the number of vCPUs.

One of the three changes at a time, on machines whose memory is all allocated. The total rate is the
same for any number of vCPUs. Each case has several rounds, all cases in turn, each in its own
process. The exponent is the slope of a line through the logarithms of the medians: 0 is no growth,
1 is proportional growth.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from apart import apart
from measure_memory import READY, SHARED, Watch, fixed_cost, take
from measurement import Curve, Effort, Measurement, Plot

from livedumpfs import DumpSettings, LiveDump
from livedumpfs.machines import UnicornMachine
from livedumpfs.units import format_duration, format_size

BASE_RATE = 8000
"""Transfers of the built-in guest a second, of all vCPUs together. Each one stores to a few
pages."""
SETTINGS = DumpSettings(force=True)
STOP_ONLY = DumpSettings(pool=4 << 20)
"""Settings for dumps that end after START. A larger pool would only make INIT longer."""


@dataclass(frozen=True)
class Case:
    """A machine. `ram` in bytes, `rate` in transfers a second."""

    ram: int
    rate: int = BASE_RATE
    vcpus: int = 1


@dataclass(frozen=True)
class Round:
    """Results of one process: ns of each stop and of each dump; bytes that the first dump took
    beyond the pool and the fixed cost."""

    stop: list[int]
    dump: list[int]
    memory: int


def play(case: Case, stops: int, dumps: int) -> Round:
    """Run one machine: whole dumps, then dumps that end after START."""
    found = Round([], [], 0)
    with (
        tempfile.TemporaryDirectory(dir=SHARED) as folder,
        UnicornMachine(case.ram, case.vcpus, rate=case.rate // case.vcpus) as machine,
    ):
        machine.wait_ready(READY)
        fixed = fixed_cost(Path(folder), SETTINGS)
        with LiveDump(machine) as dump:
            with Watch() as watch:
                pool = take(dump, Path(folder, "dump"), SETTINGS)
            for again in range(dumps):
                if again:
                    take(dump, Path(folder, "dump"), SETTINGS)
                counters = dump.counters()
                found.dump.append(counters.drained_ns - counters.instant_mono_ns)
                found.stop.append(counters.pause_ns)
            for _ in range(stops):
                dump.init(None, STOP_ONLY)
                dump.start()
                found.stop.append(dump.counters().pause_ns)
                dump.release()
    return Round(found.stop, found.dump, watch.above(pool, fixed).beyond)


@dataclass(frozen=True)
class Series:
    """Cases that differ only in the member `name`. `x`: its values, in the unit that `title`
    says."""

    name: str
    title: str
    x: Sequence[int]
    cases: Sequence[Case]


def base_ram(effort: Effort) -> int:
    """Bytes of RAM in the series where it does not change."""
    return min(64 << 20 if effort.quick else 256 << 20, effort.largest // 2)


def series(effort: Effort) -> list[Series]:
    """The three series. The target is in memory, too."""
    shifts = (25, 26, 27) if effort.quick else (26, 27, 28, 29, 30)
    sizes = sorted({min(1 << shift, effort.largest // 2) for shift in shifts})
    rates = (1000, 8000, 64000) if effort.quick else (500, 8000, 32000, 128000)
    vcpus, base = (1, 2, 4), base_ram(effort)
    return [
        Series("ram", "RAM, MiB", [n >> 20 for n in sizes], [Case(n) for n in sizes]),
        Series("rate", "transfers a second", rates, [Case(base, rate=n) for n in rates]),
        Series("vcpus", "vCPUs", vcpus, [Case(base, vcpus=n) for n in vcpus]),
    ]


@dataclass
class Found:
    """The rounds of a case, joined."""

    stop: list[float]
    dump: list[float]
    memory: list[float]

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> Found:
        """Join the rounds, in their order."""
        return cls(
            [float(n) for r in rounds for n in r.stop],
            [float(n) for r in rounds for n in r.dump],
            [float(r.memory) for r in rounds],
        )


WHAT = {"stop": "stop", "dump": "dump time", "memory": "memory"}


def exponent(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The slope through the logarithms, and its standard error (nan: fewer than 3 points)."""
    if len(x) < 3 or min(y) <= 0:
        return float("nan"), float("nan")
    slope, covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    return float(slope[0]), float(np.sqrt(covariance[0][0]))


def medians(found: Sequence[Found], what: str) -> list[float]:
    """The median of one figure for each case."""
    return [statistics.median(getattr(one, what)) for one in found]


def add(result: Measurement, one: Series, found: Sequence[Found]) -> None:
    """Add the cases' rows, the row of the exponents, and the plot."""
    for x, case in zip(one.x, found, strict=True):
        stop, dump, memory = (statistics.median(getattr(case, what)) for what in WHAT)
        times = [format_duration(stop), format_duration(dump)]
        result.rows.append([one.title, str(x), *times, format_size(memory)])
    fits = [exponent(one.x, medians(found, what)) for what in WHAT]
    result.rows.append([one.title, "exponent", *(f"{e:.2f} ± {error:.2f}" for e, error in fits)])
    curves = [_curve(one, found, what) for what in WHAT]
    name, title = f"growth-{one.name}", f"Growth with {one.title.split(',')[0]}"
    result.plots.append(Plot(name, title, one.title, "times the first", curves, True, True))


def _curve(one: Series, found: Sequence[Found], what: str) -> Curve:
    middle = medians(found, what)
    low, high = (
        [float(np.percentile(getattr(case, what), p)) / middle[0] for case in found]
        for p in (25, 75)
    )
    return Curve(WHAT[what], [float(x) for x in one.x], [y / middle[0] for y in middle], low, high)


def measure(effort: Effort) -> Measurement:
    """Measure each case once a round; a case in two series is measured once."""
    result = Measurement(
        "growth",
        "How stop, dump time and memory grow",
        ["with", "", "stop", "dump time", "memory"],
    )
    result.notes.append(
        f"Where it is not what grows: {format_size(base_ram(effort))}, {BASE_RATE} transfers a "
        "second in all, 1 vCPU. Memory: beyond the pool and the fixed cost. Where there are more "
        "vCPUs than cores, one must first be scheduled to stop."
    )
    wanted = series(effort)
    rounds: dict[Case, list[Round]] = {case: [] for one in wanted for case in one.cases}
    for _ in range(effort.repeats(2, 1)):
        for case, found in rounds.items():
            found.append(apart(play, case, effort.repeats(20, 5), effort.repeats(2, 1)))
            result.samples.append(asdict(case) | asdict(found[-1]))
    for one in wanted:
        add(result, one, [Found.of(rounds[case]) for case in one.cases])
    return result
