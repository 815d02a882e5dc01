# SPDX-License-Identifier: GPL-2.0-or-later
"""Retention: which dumps of a store are kept, by the rules of restic and borg.

Each rule goes through the dumps of one machine from the newest to the oldest and keeps the newest
of each hour, day, week, month or year that has one, until it has kept so many. A dump may be kept
by several rules. A rule that has not kept its number at the end keeps the oldest dump too: it is
the only one that will ever fill what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final

from livedumpfs.errors import UsageError
from livedumpfs.stores.listing import StoredDump

_NS: Final = 10**9


@dataclass(frozen=True)
class Retention:
    """How many of each kind are kept; 0: the rule is not there. `within`: seconds before the newest
    dump of the machine."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: float = 0.0

    def expect_a_rule(self) -> None:
        """UsageError: there is none, so nothing would be kept."""
        if not any(getattr(self, one.name) for one in fields(self)):
            raise UsageError(
                "nothing says which dumps are to be forgotten",
                hint="name them, or give a rule such as <keep_last>",
            )


_PERIODS: Final[dict[str, Callable[[datetime], Hashable]]] = {
    "hourly": lambda t: (t.date(), t.hour, t.utcoffset()),  # the hour that comes twice is two
    "daily": lambda t: t.date(),
    "weekly": lambda t: t.isocalendar()[:2],
    "monthly": lambda t: (t.year, t.month),
    "yearly": lambda t: t.year,
}
"""In local time of this computer."""


def kept(dumps: Sequence[StoredDump], rules: Retention) -> dict[str, list[str]]:
    """Name -> the rules that keep it, for the dumps that stay, in the order of `dumps`.

    Dumps of one host and machine are counted apart from others. Only consistent ones count, unless
    a machine has none. What is newer than the newest that counts stays, too, and so does what has
    no record: nothing says when it was taken, and of what. UsageError: of a dump with a record it
    is not known of which machine it is.
    """
    _expect_known(dumps)
    reasons: dict[str, list[str]] = {}
    for group in {one.group: None for one in dumps if one.record}:
        mine = [one for one in dumps if one.record and one.group == group]
        _keep(sorted(mine, key=lambda one: (one.taken_ns, one.name), reverse=True), rules, reasons)
    for one in dumps:
        if not one.record:
            reasons[one.name] = ["no record"]
    return {one.name: reasons[one.name] for one in dumps if one.name in reasons}


def _expect_known(dumps: Sequence[StoredDump]) -> None:
    """UsageError: rules would count dumps of several machines as those of one."""
    unknown = [one for one in dumps if one.record and one.group is None]
    if unknown:
        first = unknown[0]
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        kind = first.record.machine if first.record else ""
        raise UsageError(
            f"rules cannot choose: {first.name}{more} may be of any machine of the kind {kind!r}",
            hint="name the dumps that are to go, as DUMP... arguments",
        )


def _keep(dumps: list[StoredDump], rules: Retention, reasons: dict[str, list[str]]) -> None:
    """Of one machine, the newest first."""

    def keep(one: StoredDump, why: str) -> None:
        reasons.setdefault(one.name, []).append(why)

    good = [one for one in dumps if one.verdict == "consistent"] or dumps
    for one in dumps[: dumps.index(good[0])]:
        keep(one, "newest")
    for one in good[: rules.last]:
        keep(one, "last")
    for name, period in _PERIODS.items():
        for one in _one_of_each(good, getattr(rules, name), period):
            keep(one, name)
    if rules.within:
        oldest = good[0].taken_ns - int(rules.within * _NS)
        for one in dumps[dumps.index(good[0]) :]:
            if one.taken_ns >= oldest:
                keep(one, "within")


def _one_of_each(
    dumps: list[StoredDump], count: int, period: Callable[[datetime], Hashable]
) -> list[StoredDump]:
    """The newest of each period, at most `count`; and the oldest of all, where these are fewer."""
    found: list[StoredDump] = []
    before: Hashable = None
    for one in dumps:
        this = period(datetime.fromtimestamp(one.taken_ns // _NS).astimezone())
        if len(found) < count and (this != before or one is dumps[-1]):
            found.append(one)
            before = this
    return found
