# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest of a fleet dump: which dumps belong together, and what they are worth as a whole. It
is written last, so a fleet dump without one was broken off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from livedumpfs.errors import InvalidDump
from livedumpfs.fleet.offsets import ClockFacts, Offset
from livedumpfs.units import format_duration

SUFFIX: Final = ".fleet.json"
VERSION: Final = 1
Word = Literal["consistent", "torn", "incomplete"]
How = Literal["barrier", "clock"]
WORST_LAST: Final[dict[Word, int]] = {"consistent": 0, "torn": 1, "incomplete": 2}


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """The instant of one member, by its own clock. Times in ns since the epoch, or ns."""

    instant_ns: int
    instant_mono_ns: int = 0
    """By CLOCK_MONOTONIC of its computer, which nothing sets; 0: not known."""
    pause_ns: int
    """How long the machine was stopped; 0: the host does not say it."""
    stood_from_ns: int = 0
    """By barrier: the machine stood from here ..."""
    stood_until_ns: int = 0
    """... and until here."""
    stood: bool = True
    """By barrier: it stood until it was let go. False: its deadline had let it go before."""


class MemberIncrement(msgspec.Struct, frozen=True, kw_only=True):
    """What a dump in a store has read of the memory."""

    tracked: bool = False
    """Its host is set to keep track of changes."""
    since: str = ""
    """Id of the dump in the store whose chunks it took where nothing had changed; "": none."""
    unread: int = 0
    """Bytes that were not read, because they are as in that dump."""
    all_read: str | None = None
    """Why all was read, in one sentence; None: it was not."""


class MemberRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One member."""

    name: str
    host: str
    """The livedump file of its host, as its worker sees it."""
    computer: str
    """The network name of that computer."""
    boot: str = ""
    """Which boot of its kernel: members that agree in it share a clock."""
    worker: str
    """Address of the worker that dumped it."""
    machine: str = ""
    """Kind of machine."""
    dump: str | None = None
    """Where its dump is, as its worker sees it; None: there is none."""
    dump_id: str = ""
    """Hexadecimal."""
    verdict: Word = "incomplete"
    reason: str | None = None
    """Why the verdict is not "consistent"."""
    held: bool | None = None
    """By barrier: whether it stood all the time until every member of the barrier was armed.
    None: by clock."""
    taken: Taken | None = None
    """None: it has no instant."""
    offset: Offset | None = None
    """Its clock beside the reference clock; None: not measured."""
    clock: ClockFacts | None = None
    bytes: int = 0
    """Of the machine's memory."""
    checksum: str | None = None
    """Of its dump: "KIND:HEX", see docs/fleet.md."""
    increment: MemberIncrement | None = None
    """None: its dump is no dump of a store."""

    @property
    def instant_ns(self) -> int | None:
        """Its instant by the reference clock, both as they went when they were compared: a clock
        that was set between that and the instant shows another time there."""
        if self.taken is None or self.offset is None:
            return None
        if self.taken.instant_mono_ns and self.offset.epoch_ns:
            return self.taken.instant_mono_ns + self.offset.epoch_ns - self.offset.ns
        return self.taken.instant_ns - self.offset.ns


class LeftOut(msgspec.Struct, frozen=True):
    """A member that was asked for and is no part of the fleet dump."""

    name: str
    why: str


class Skew(msgspec.Struct, frozen=True):
    """How far apart the instants are, in ns."""

    ns: int
    """Last instant minus first, by the reference clock."""
    error_ns: int
    """How much more or less it can be: the two worst errors of the offsets together."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet dump."""

    version: int = VERSION
    id: str
    how: How
    one_instant: bool
    """The members stood all at once: no message that one of them sent after its instant is in the
    dump of another. By clock: False, whatever the skew."""
    verdict: Word
    reason: str | None = None
    best_effort: bool = False
    agreed_ns: int | None = None
    """By clock: the agreed time, by the reference clock."""
    reference: str = ""
    """The worker whose clock is the reference."""
    skew: Skew | None = None
    most_skew_ns: int | None = None
    """By clock: more is torn."""
    members: tuple[MemberRecord, ...]
    left_out: tuple[LeftOut, ...] = ()
    made_by: str = ""
    """The version of livedumpfs."""


def skew_of(members: Sequence[MemberRecord]) -> Skew | None:
    """None: less than two instants are known."""
    known = [(one.instant_ns, one.offset) for one in members if one.instant_ns is not None]
    if len(known) < 2:
        return None
    instants = [instant for instant, _ in known if instant is not None]
    errors = sorted(offset.error_ns for _, offset in known if offset is not None)
    return Skew(max(instants) - min(instants), sum(errors[-2:]))


def judge_fleet(
    how: How,
    members: Sequence[MemberRecord],
    left_out: Sequence[LeftOut],
    most_skew_ns: int | None,
) -> tuple[Word, str | None]:
    """What they are worth as a whole, and why. The worst member decides. By barrier a member that
    did not stand until all were armed makes it torn; by clock a skew that may be more than
    `most_skew_ns` does; None: no limit is known."""
    worst: Word = "consistent"
    reasons = []
    for one in members:
        if WORST_LAST[one.verdict] > WORST_LAST[worst]:
            worst = one.verdict
        if one.verdict != "consistent":
            reasons.append(f"the dump of {one.name} is {one.verdict}: {one.reason or 'unknown'}")
    apart = [one.name for one in members if one.held is False]
    skew = skew_of(members)
    if apart:
        reasons.append(f"{', '.join(apart)} did not stand until all members were armed")
    elif how == "clock" and skew is None and len(members) > 1:
        reasons.append("the instants of its members are not known")
    elif (
        skew is not None
        and most_skew_ns is not None
        and how == "clock"
        and (skew.ns + skew.error_ns > most_skew_ns)
    ):
        most = format_duration(most_skew_ns)
        found = format_duration(skew.ns + skew.error_ns)
        reasons.append(f"the instants may be {found} apart, more than {most}")
    if reasons and worst == "consistent":
        worst = "torn"
    if left_out and not reasons:
        return worst, f"without {', '.join(one.name for one in left_out)}"
    return worst, "; ".join(reasons) or None


def judge_again(manifest: Manifest) -> Manifest:
    """With the verdict that its members have together, if that is worse than what it says."""
    verdict, reason = judge_fleet(
        manifest.how, manifest.members, manifest.left_out, manifest.most_skew_ns
    )
    whole = manifest.one_instant and all(one.held for one in manifest.members)
    if WORST_LAST[verdict] <= WORST_LAST[manifest.verdict]:
        verdict, reason = manifest.verdict, manifest.reason
    return msgspec.structs.replace(manifest, verdict=verdict, reason=reason, one_instant=whole)


def encode(manifest: Manifest) -> bytes:
    """JSON, indented: people read it, too."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes, name: str) -> Manifest:
    """InvalidDump: it is not a manifest, or one of another version."""
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidDump(f"{name} is not the manifest of a fleet dump: {error}") from error
    if found.version != VERSION:
        raise InvalidDump(f"{name} is of version {found.version}, this livedumpfs reads {VERSION}")
    return found
