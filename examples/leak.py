# SPDX-License-Identifier: GPL-2.0-or-later
"""What takes ever more memory in a Linux guest: two dumps of it, compared by drgn.

    python examples/leak.py VMLINUX EARLIER LATER

VMLINUX has the debug symbols of the guest's kernel. The guest was not stopped for the dumps, and
nothing runs in it for this.
"""

from __future__ import annotations

import sys

from drgn import Program
from drgn.helpers.linux.mm import task_rss
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.slab import for_each_slab_cache, slab_cache_usage

Amounts = dict[str, int]
SHOWN = 5


def open_dump(symbols: str, dump: str) -> Program:
    """The kernel in a dump."""
    program = Program()
    program.set_core_dump(dump)
    program.load_debug_info([symbols])
    return program


def processes(program: Program) -> Amounts:
    """KiB of anonymous memory of each process."""
    found = {}
    for task in for_each_task(program):
        if task.mm and task.pid == task.tgid:
            pages = task_rss(task).anon
            name = task.comm.string_().decode(errors="replace")
            found[f"{task.pid.value_():6} {name}"] = pages * 4
    return found


def caches(program: Program) -> Amounts:
    """KiB of objects in each slab cache of the kernel."""
    return {
        cache.name.string_().decode(): slab_cache_usage(cache).num_objs * int(cache.size) >> 10
        for cache in for_each_slab_cache(program)
    }


def grown(before: Amounts, after: Amounts) -> list[tuple[str, int, int]]:
    """Name, KiB before and after, of what has grown most."""
    rows = [(name, before.get(name, 0), amount) for name, amount in after.items()]
    rows.sort(key=lambda row: row[1] - row[2])
    return [row for row in rows[:SHOWN] if row[2] > row[1]]


def main(symbols: str, earlier: str, later: str) -> None:
    """Two tables."""
    programs = [open_dump(symbols, dump) for dump in (earlier, later)]
    for title, look in (("process", processes), ("slab cache", caches)):
        print(f"{title:24} {'KiB then':>10} {'KiB now':>10} {'grown':>10}")
        for name, then, now in grown(*map(look, programs)):
            print(f"{name:24} {then:10} {now:10} {now - then:10}")


if __name__ == "__main__":
    main(*sys.argv[1:])
