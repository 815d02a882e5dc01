# SPDX-License-Identifier: GPL-2.0-or-later
"""A training loop that checkpoints each N steps without stopping, beside other ways to do so.

    python examples/training.py                    # all ways, one after the other: a table
    python examples/training.py --way "livedumpfs, Zarr" --keep DIR
    python examples/training.py --resume DIR/state.zarr --steps 40

Parameters and the optimizer's state lie in an arena. A save takes them at one instant between two
steps; meanwhile, and while it is written, the loop makes its next steps.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from checkpoints import NUMPY_WAYS, TORCH_WAYS, WAYS
from models import HAS_TORCH, Shape, make_arena, make_trainer

from livedumpfs import Arena

ALL = WAYS | (TORCH_WAYS if HAS_TORCH else NUMPY_WAYS)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=sorted(ALL), help="this one alone")
    parser.add_argument("--steps", type=int, default=60, help="in all, also of a resumed run")
    parser.add_argument("--every", type=int, default=20, help="steps between two checkpoints")
    parser.add_argument("--width", type=int, default=2048, help="of a layer")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="of all ways, in turns")
    parser.add_argument("--keep", metavar="DIR", help="leave the checkpoints there")
    parser.add_argument("--resume", metavar="PATH", help="go on from a checkpoint of livedumpfs")
    parser.add_argument("--json", action="store_true", help="what was measured, as JSON")
    return parser.parse_args()


def run(args: argparse.Namespace) -> dict[str, Any]:
    """One way, in this process."""
    shape = Shape(args.width, args.layers, args.batch)
    arena = Arena.load(args.resume) if args.resume else make_arena(shape)
    kind, name = ALL[args.way or "none"]
    with arena, tempfile.TemporaryDirectory(dir=args.keep, ignore_cleanup_errors=True) as folder:
        trainer = make_trainer(arena, shape)
        way = kind(arena, trainer, os.path.join(args.keep or folder, name))
        times, saved, loss = [], 0, 0.0
        if not args.resume:
            trainer.step()  # which loads libraries, and touches all memory first
        with way.boundary:
            way.begin()  # also a library that is loaded at its first use
            way.wait()
            gc.collect()
            begun = time.monotonic()
            while trainer.steps[0] < args.steps:
                before = time.perf_counter()
                loss = trainer.step()
                if trainer.steps[0] % args.every == 0 and kind is not ALL["none"][0]:
                    way.begin()
                    saved += 1
                way.boundary.step()
                times.append(time.perf_counter() - before)
            way.wait()
        seconds = time.monotonic() - begun
        digest = hashlib.sha256(b"".join(a.tobytes() for a in trainer.arrays.values()))
    return {
        "way": args.way or "none",
        "library": "PyTorch" if HAS_TORCH else "numpy",
        "state": shape.state_bytes,
        "checkpoints": saved,
        "steps": len(times),
        "times": times,
        "seconds": seconds,
        "loss": loss,
        "digest": digest.hexdigest(),
    }


def run_all(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Each way in processes of its own, in turns."""
    found: dict[str, dict[str, Any]] = {}
    for _ in range(args.rounds):
        for way in ALL:
            command = [sys.executable, __file__, "--json", "--way", way]
            for name in ("steps", "every", "width", "layers", "batch"):
                command += [f"--{name}", str(getattr(args, name))]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            one = json.loads(done.stdout.splitlines()[-1])
            there = found.setdefault(way, {**one, "times": [], "seconds": 0.0})
            there["times"] += one["times"]
            there["seconds"] += one["seconds"] / args.rounds
            assert there["digest"] == one["digest"] == found["none"]["digest"], way
    return list(found.values())


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [
        "| checkpoints by | median ms | p99 ms | max ms | all steps s |",
        "| -- | -- | -- | -- | -- |",
    ]
    for one in rows:
        values = np.median(one["times"]), np.quantile(one["times"], 0.99), max(one["times"])
        times = " | ".join(f"{1000 * value:.0f}" for value in values)
        lines.append(f"| {one['way']} | {times} | {one['seconds']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """See above."""
    args = parse()
    rows = [run(args)] if args.way or args.resume else run_all(args)
    if args.json:
        print(json.dumps(rows[0] if len(rows) == 1 else rows))
        return
    first = rows[0]
    load = os.getloadavg()[0]
    print(
        f"{first['library']}, {first['state'] >> 20} MiB of parameters and optimizer, "
        f"{len(first['times'])} steps, a checkpoint each {args.every}; "
        f"{len(os.sched_getaffinity(0))} processors, load {load:.1f}\n"
    )
    print(table(rows))


if __name__ == "__main__":
    main()
