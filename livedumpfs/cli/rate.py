# SPDX-License-Identifier: GPL-2.0-or-later
"""The rate in a progress bar, in the unit of all other outputs; rich's own counts in 1000s."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text

from livedumpfs.units import format_size


class RateColumn(ProgressColumn):
    """Bytes a second."""

    def render(self, task: Task) -> Text:
        """Nothing before it is known."""
        rate = task.finished_speed or task.speed
        return Text(f"{format_size(rate)}/s" if rate else "", style="progress.data.speed")
