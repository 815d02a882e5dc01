# SPDX-License-Identifier: GPL-2.0-or-later
"""The cost of the first store to a page after the snapshot instant (copy-on-write), per touched
page.

One writer and nothing else: the same stores before and after the stop, until one page of five was
touched. The result is the difference, divided by the number of these pages. Saved pages stay in
memory, which is allocated before.
"""

from __future__ import annotations

from measurement import Bar, Effort, Measurement
from peers.build import PATTERNS, floor, touch
from ways import Found, in_turns, quantile

WAYS = ("ours", "fork", "uffd-sigbus", "mprotect", "uffd")
LIMITS = {"hot": 1.0, "sequential": 1.0, "uniform": 2.0}
HANDLER_THREAD = 5.0
DUMPS = {"uffd": 1}
"""Dumps of one process, where not 3: ways that take seconds are repeated less often."""


def measure(effort: Effort) -> Measurement:
    """Table, bars, and the least cost that is possible."""
    found = Measurement(
        "touch",
        "First store to a page after the instant, nanoseconds a touched page",
        ["pattern", *WAYS, "ours / fork", "uffd / ours"],
    )
    size = effort.repeats(512 << 20, 64 << 20)
    for pattern, limit in LIMITS.items():
        runs = in_turns(
            WAYS,
            effort.repeats(3, 1),
            lambda way, number=PATTERNS[pattern]: touch(
                way, size=size, pattern=number, dumps=DUMPS.get(way, 3)
            ),
        )
        costs = {
            way: quantile([one for run in runs[way] for one in _costs(run)], 0.5) for way in WAYS
        }
        against = costs["ours"] / costs["fork"]
        thread = costs["uffd"] / costs["ours"]
        found.rows.append(
            [pattern, *(f"{costs[way]:,.0f}" for way in WAYS), f"{against:.2f}", f"{thread:.1f}"]
        )
        found.bars.append(Bar(f"{pattern}: ours / fork", against, limit, at_least=False))
        found.bars.append(Bar(f"{pattern}: handler thread / ours", thread, HANDLER_THREAD))
        found.samples += [{"pattern": pattern, **run} for way in WAYS for run in runs[way]]
    base = floor()
    found.samples.append({"floor": base})
    found.notes.append(
        "Floor of one fault in user space, each alone: a signal and its return {signal_ns} ns, "
        "making one page of a mapping writable {mprotect_ns} ns, a copy of 4 KiB {copy_ns} ns. "
        "Granules of more than one page share the first two.".format(**base)
    )
    return found


def _costs(run: Found) -> list[float]:
    return [(turn["armed_ns"] - turn["plain_ns"]) / run["pages"] for turn in run["turns"]]
