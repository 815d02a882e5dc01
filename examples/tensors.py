# SPDX-License-Identifier: GPL-2.0-or-later
"""Tensors of PyTorch over an arena: they are dumped while they are trained.

python examples/tensors.py DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from livedumpfs import Arena, LiveDump, load_array


def main(folder: str) -> None:
    """One step under a dump; the dump has the weights from before."""
    path = Path(folder) / "weights.elf"
    with Arena("4MiB") as arena:
        weights = torch.from_numpy(arena.zeros((100, 100), "f4", name="weights"))
        weights.fill_(1.0)  # in place: so it stays in the arena
        weights.requires_grad_()
        dump = LiveDump(arena)
        dump.init(path)
        dump.start()
        (weights**2).sum().backward()
        with torch.no_grad():
            weights -= 0.25 * weights.grad  # `weights = weights - ...` would leave the arena
        dump.sweep()
        dump.finish()
        dump.release()
        assert float(arena.arrays["weights"][0, 0]) == 0.5
    assert float(load_array(path, "weights")[0, 0]) == 1.0
    print("the dump has the weights from before the step")


if __name__ == "__main__":
    main(sys.argv[1])
