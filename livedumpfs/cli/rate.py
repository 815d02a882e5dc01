# SPDX-License-Identifier: GPL-2.0-or-later
"""The rate in a progress bar, in the same unit as all other output; rich counts in thousands."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text

from livedumpfs.units import format_size


class RateColumn(ProgressColumn):
    """Bytes per second."""

    def render(self, task: Task) -> Text:
        """Empty until the rate is known."""
        rate = task.finished_speed or task.speed
        return Text(f"{format_size(rate)}/s" if rate else "", style="progress.data.speed")
