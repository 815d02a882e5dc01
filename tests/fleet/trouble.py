# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong in a step of a host without a machine."""

from __future__ import annotations

import time
from typing import Any

from livedumpfs.errors import HostError


class Trouble:
    """Fails, or waits, in one step of hosts whose name ends with some text. Notes all steps."""

    def __init__(self, step: str = "", host: str = "", *, wait_s: float = 0) -> None:
        self.step, self.host, self.wait_s = step, host, wait_s
        self.seen: list[tuple[str, str]] = []

    def __reduce__(self) -> Any:
        """It stays this object: the workers are threads of this process."""
        _troubles[id(self)] = self
        return known, (id(self),)

    def __call__(self, host: str, step: str) -> None:
        self.seen.append((host, step))
        if step == self.step and host.endswith(self.host):
            if not self.wait_s:
                raise HostError(f"no {step} today", errno=5)
            time.sleep(self.wait_s)

    def steps(self) -> list[str]:
        return [step for _, step in self.seen if step != "saved"]


_troubles: dict[int, Trouble] = {}


def known(number: int) -> Trouble:
    return _troubles[number]
