# SPDX-License-Identifier: GPL-2.0-or-later
"""metrics: stats.json for a monitoring system, as Prometheus' text. Units: seconds, bytes.

What is counted of a dump is counted anew for each, and stays after it until the next INIT. What is
counted of the host is in Tally.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from livedumpfs import __version__, abi
from livedumpfs.control.tally import VERDICTS, Tallied
from livedumpfs.dump import LiveDump
from livedumpfs.dump.counters import Counters
from livedumpfs.units import PAGE_SIZE

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

PREFIX: Final = "livedumpfs_"
_NANO: Final = 1e-9


@dataclass(frozen=True)
class Family:
    """How a member of Counters is shown."""

    kind: Literal["counter", "gauge"]
    name: str
    """Without the prefix, and without _total of a counter."""
    help: str
    scale: float = 1


FAMILIES: Final[dict[str, Family]] = {
    "granule_size": Family("gauge", "granule_size_bytes", "Unit of protection and of saving."),
    "granules": Family("gauge", "granules", "Granules in the arena."),
    "faults": Family("counter", "faults", "Stores to protected memory since START."),
    "steals": Family("counter", "steals", "Granules taken from sweep I/O under way."),
    "by_fault": Family("counter", "granules_saved_by_fault", "Granules that the fault path saved."),
    "by_sweep": Family("counter", "granules_saved_by_sweep", "Granules that the sweep saved."),
    "holes": Family("counter", "granules_holes", "Granules that are holes, or all zeros."),
    "omitted": Family("counter", "granules_omitted", "Granules left out: as in the base."),
    "lost": Family("counter", "granules_lost", "Granules that the dump has lost."),
    "remaining": Family("gauge", "granules_remaining", "Granules that are not saved yet."),
    "widened": Family("counter", "granules_widened", "Granules saved early for want of mappings."),
    "slots": Family("gauge", "slots", "Slots that the pool has now."),
    "slots_peak": Family("gauge", "slots_peak", "Most slots in use at once."),
    "slots_most": Family("gauge", "slots_most", "Most slots that the pool had at once."),
    "helpers_most": Family("gauge", "helpers_most", "Most helpers of the drain called at once."),
    "slot_waits": Family("counter", "slot_waits", "Times that a vCPU waited for a free slot."),
    "slot_wait_ns": Family(
        "counter", "slot_wait_seconds", "Time that vCPUs waited for one, summed.", _NANO
    ),
    "spilled": Family("counter", "slots_spilled", "Slots added to the pool after INIT."),
    "bytes_written": Family("counter", "written_bytes", "Data and zeros written to the target."),
    "bytes_pool": Family(
        "counter", "written_from_slots_bytes", "Of the written bytes, those from slots."
    ),
    "target_end": Family("gauge", "target_end_bytes", "End of a packed target's data, else 0."),
    "stall_max_ns": Family("gauge", "handler_max_seconds", "Longest time in the handler.", _NANO),
    "quiesce_ns": Family("gauge", "quiesce_seconds", "Pause: until all vCPUs stood.", _NANO),
    "arm_ns": Family("gauge", "arm_seconds", "Pause: until the memory was protected.", _NANO),
    "resume_ns": Family("gauge", "resume_seconds", "Pause: until the vCPUs ran again.", _NANO),
    "pause_ns": Family("gauge", "pause_seconds", "The whole pause of the machine in START.", _NANO),
    "instant_mono_ns": Family(
        "gauge", "instant_monotonic_seconds", "The snapshot instant after boot; 0: none yet.", _NANO
    ),
    "instant_wall_ns": Family(
        "gauge",
        "instant_timestamp_seconds",
        "The snapshot instant since the epoch; 0: none yet.",
        _NANO,
    ),
    "sweep_start_ns": Family(
        "gauge",
        "sweep_start_monotonic_seconds",
        "Begin of the sweep; 0: not yet.",
        _NANO,
    ),
    "drained_ns": Family(
        "gauge", "drained_monotonic_seconds", "End of the drain; 0: not yet.", _NANO
    ),
    "gave_up": Family("gauge", "gave_up", "1: the policy became fail, for an error or a deadline."),
    "abandoned": Family("gauge", "abandoned", "1: the target was given up."),
    "not_durable": Family("gauge", "not_durable", "1: a sync or a write of the table failed."),
    "chained": Family(
        "counter", "signals_passed_on", "SIGSEGVs and SIGBUSes passed on to another handler."
    ),
    "retaken": Family("counter", "handler_retaken", "Times that our handler was put back."),
}
"""All members but the handler's times and the failure, which have their own."""


CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Of what metrics() makes."""


def metrics(state: abi.State, dump: LiveDump, tallied: Tallied) -> bytes:
    """What a scrape gets. Its names are documented in docs/metrics.md."""
    # Not at the start of every program: the library takes a tenth of a second to load.
    from prometheus_client.exposition import generate_latest

    return generate_latest(_Collector([*_collect(state, dump), *_of_the_host(tallied)]))


class _Collector:
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """All."""
        return self._families


def _collect(state: abi.State, dump: LiveDump) -> Iterator[Metric]:
    from prometheus_client import metrics_core as core

    counters, progress = dump.counters(), dump.progress()
    verdict, failed = dump.verdict, dump.failure is not None
    yield core.InfoMetricFamily(
        PREFIX[:-1],
        "The host.",
        {"version": __version__, "machine": dump.machine.name},
    )
    names = {one.name: one is state for one in abi.State}
    yield core.StateSetMetricFamily(PREFIX + "state", "1: the state of the dump.", names)
    names = {name: name == verdict for name in VERDICTS}
    yield core.StateSetMetricFamily(PREFIX + "verdict", "1: the verdict; all 0: none.", names)
    for name, text, value in (
        ("memory_bytes", "Size of the machine's memory.", progress.total),
        ("memory_done_bytes", "Bytes of it that the dump has: saved, or zeros.", progress.done),
        ("memory_lost_bytes", "Bytes of it that the dump will not have.", progress.lost),
        (
            "lost_pages",
            "Pages that the dump has lost.",
            counters.lost * counters.granule_size // PAGE_SIZE,
        ),
        ("failed", "1: the dump has failed; stats.json says why.", int(failed)),
        ("failure_errno", "Errno of the dump's first error; 0: none.", counters.failure.error),
    ):
        yield core.GaugeMetricFamily(PREFIX + name, text, value)
    for member, family in FAMILIES.items():
        value = getattr(counters, member) * family.scale
        make = core.CounterMetricFamily if family.kind == "counter" else core.GaugeMetricFamily
        yield make(PREFIX + family.name, family.help, value)
    yield core.HistogramMetricFamily(
        PREFIX + "handler_seconds",
        "Time of each fault in the handler.",
        buckets=buckets(counters),
        sum_value=counters.handler_sum_ns * _NANO,
    )


def _of_the_host(tallied: Tallied) -> Iterator[Metric]:
    from prometheus_client import metrics_core as core

    for name, text, label, counts in (
        ("dumps", "Dumps of this host whose verdict is final.", "verdict", tallied.dumps),
        (
            "failed_steps",
            "Steps that this host could not take.",
            "step",
            tallied.failed_steps,
        ),
    ):
        family = core.CounterMetricFamily(PREFIX + name, text, labels=[label])
        for value, count in counts.items():
            family.add_metric([value], count)
        yield family
    yield core.GaugeMetricFamily(
        PREFIX + "last_consistent_timestamp_seconds",
        "Instant of this host's newest consistent dump since the epoch; 0: none yet.",
        tallied.consistent_wall_ns * _NANO,
    )


def buckets(counters: Counters) -> list[tuple[str, float]]:
    """Upper bounds in seconds, and how many faults took no longer. The core's last one has no
    bound."""
    sums = list(itertools.accumulate(counters.handler_ns))
    bounds = [repr(2 ** (i + 1) * _NANO) for i in range(len(sums) - 1)]
    return list(zip([*bounds, "+Inf"], map(float, sums), strict=True))
