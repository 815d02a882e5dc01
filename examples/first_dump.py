# SPDX-License-Identifier: GPL-2.0-or-later
"""The shortest dump of a program's arrays: one thread computes, and is not stopped for it.

python examples/first_dump.py
"""

import threading

from livedumpfs import Arena, LiveDump, WriterLock, load_array

arena = Arena("64MiB")
heat = arena.zeros((1000, 1000), "f8", name="heat")
steps = arena.zeros((), "i8", name="steps")
writers, enough = WriterLock(), threading.Event()


def work() -> None:
    """Each step adds one to every element."""
    while not enough.is_set():
        with writers:  # a dump waits for the end of the step, some milliseconds
            heat[:] += 1.0
            steps[...] += 1


thread = threading.Thread(target=work)
thread.start()
LiveDump(arena, writers=writers).save("first.elf")  # the thread writes on meanwhile
enough.set()
thread.join()

saved = load_array("first.elf", "heat")
whole = (saved == load_array("first.elf", "steps")).all()
print(
    f"the dump is of one instant: {whole}; the program went on by {steps - saved[0, 0]:.0f} steps"
)
