# SPDX-License-Identifier: GPL-2.0-or-later
"""The sum of machines that pay each other (programs/exchanger.py), from dumps of them: right only
if the dumps show one instant.

A payment leaves an account of the sender, and lies in its `amount` with its number in `sent` until
the receiver says that it has got it. The receiver counts it in `got`. So at one instant each number
in `got` is that in `sent`, and the payment is not in flight any more, or one less, and it is. A
receiver that is seen later than the sender can have got what was never sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livedumpfs import open_dump

ACCOUNTS = 1 << 16
BEGIN = 1000
"""What each account holds at first; it may be overdrawn."""
NAMES = ("accounts", "sent", "amount", "got")


@dataclass(frozen=True)
class Balance:
    """What dumps of all machines hold together."""

    missing: int
    """What they must hold less what they do."""
    in_flight: int
    never_sent: int
    """Payments that were got by one and not yet sent by another: a later instant."""
    payments: int

    @property
    def right(self) -> bool:
        return self.missing == 0 and self.never_sent == 0


def balance(paths: Sequence[str]) -> Balance:
    """Of the dumps at these paths, in the order of the machines' indexes."""
    found = []
    for path in paths:
        with open_dump(path) as dump:
            found.append({name: dump.array(name).copy() for name in NAMES})
    held, in_flight, never = 0, 0, 0
    for i, sender in enumerate(found):
        held += int(sender["accounts"].sum())
        for j, receiver in enumerate(found):
            ahead = int(sender["sent"][j]) - int(receiver["got"][i])
            never += ahead < 0
            in_flight += int(sender["amount"][j]) if ahead == 1 else 0
    payments = int(sum(one["sent"].sum() for one in found))
    missing = len(found) * ACCOUNTS * BEGIN - held - in_flight
    return Balance(missing, in_flight, never, payments)
