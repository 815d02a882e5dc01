# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of all kinds, chosen at random, each compared with a copy of the memory at its instant.

Machine, writers, settings, target and end of dump number i follow from the seed and i. What a dump
says that it has must be what the machine had; what is missing must be named, and only a policy that
says so may lose it. Ends with a table and one line of JSON; exits with 1 when something was wrong.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from choices import Chooser, DumpChoice
from judge import Verdict, dump_id_of, judge_reads, judge_target, unpack_stream
from oracle import Reference
from relay import Relay
from rich.console import Console
from tally import Tally
from victim import Failed, Hang, Victim
from writers import build

from livedumpfs.kinds import AUTO
from livedumpfs.units import format_size

MOST_FAILURES = 10
"""Then it is enough."""
REPORT_S = 30.0


class Soak:
    """One run: owns the host, the reference and the targets."""

    def __init__(
        self, chooser: Chooser, folder: Path, tmpfs: Path, deadline_s: float, verbose: bool
    ) -> None:
        self.chooser = chooser
        self.console = Console(width=120, soft_wrap=True, highlight=False, markup=False)
        self.tally = Tally(chooser.seed, chooser.largest)
        self._places = {"file": folder, "slow": folder}
        self._tmpfs = tmpfs
        self._deadline_s, self._verbose = deadline_s, verbose
        self._library = build(folder)
        self._reference = Reference(0)
        self._victim: Victim | None = None
        self._began = time.monotonic()

    def run(self, indices: Iterator[int] | range, seconds: float) -> None:
        """Dump after dump until the time is over, or too much was wrong."""
        reported = self._began
        for index in indices:
            self._one(self.chooser.choose(index))
            now = time.monotonic()
            self.tally.seconds = now - self._began
            if now - reported >= REPORT_S:
                reported = now
                self._say_progress()
            over = self.tally.seconds >= seconds
            if over or self.tally.hangs or len(self.tally.failed) >= MOST_FAILURES:
                break

    def _say_progress(self) -> None:
        tally = self.tally
        self.console.print(
            f"{tally.seconds:.0f} s: {tally.dumps} dumps, {tally.pages:,} pages compared, "
            f"{tally.differences} differences, {tally.faults:,} faults"
        )

    def _one(self, choice: DumpChoice) -> None:
        verdict, done, begun = Verdict(), None, time.monotonic()
        try:
            done = self._dump(choice, verdict)
        except Hang as error:
            self.tally.hangs += 1
            verdict.problems.append(f"hangs: {error}")
            assert self._victim
            verdict.problems += self._victim.status()
        except Failed as error:
            verdict.problems.append(str(error))
        self.tally.add(choice, verdict, done)
        if self._verbose:
            self._say(choice, verdict, time.monotonic() - begun)
        if verdict.problems:
            self._end_victim()
            self._say_problems(choice, verdict)
        elif done is not None and self._victim:
            self._victim.go()

    def _dump(self, choice: DumpChoice, verdict: Verdict) -> dict[str, object] | None:
        self._reference.clear(choice.machine.size)
        place = self._places.get(choice.target, self._tmpfs)
        path = place / f"dump-{choice.target}"
        if choice.fresh or choice.target == "pipe":
            for old in place.glob("dump-*"):
                old.unlink()
        unfinished = path.with_name(f"{path.name}.incomplete")
        places = [one for one in (path, unfinished) if one.exists() and choice.target != "pipe"]
        before = {dump_id_of(one) for one in places} - {None}
        if self._victim is None or not self._victim.alive:
            self._victim = Victim(self.chooser, self._reference.fd, self._library, self._deadline_s)
        victim, stream = self._victim, place / "dump-stream"
        relay = Relay(path, stream, choice.index) if choice.target == "pipe" else None
        try:
            done = victim.dump(choice, path)
        finally:
            if relay and not victim.alive:
                relay.close(self._deadline_s)
        if relay and victim.alive:
            relay.close(self._deadline_s)
        if done is not None:
            judge_reads(choice, done, verdict)
        reached = victim.reached
        if relay:
            path = place / "dump-unpacked"
            if not unpack_stream(stream, path):
                verdict.expect(choice.end != "finish", "what came through the pipe is no dump")
                return done
        if unfinished.exists() and dump_id_of(unfinished) not in {None, *before}:
            path = unfinished
        if choice.target != "none":
            judge_target(choice, path, self._reference, reached, before, done, verdict)
        return done

    def _say(self, choice: DumpChoice, verdict: Verdict, seconds: float) -> None:
        settings, machine = choice.settings, choice.machine
        kind = settings.compression if settings.format == "kdump" else settings.format
        pool = AUTO if settings.pool_is_auto else format_size(settings.pool)
        words = (
            f"{machine.kind} {format_size(machine.size)} {','.join(machine.patterns)}",
            f"{kind} {settings.policy} {settings.backend} {settings.arming}",
            f"granule {format_size(settings.granule)} pool {pool}",
            f"{choice.target} {choice.end} {choice.step}",
            f"{seconds:.1f} s, {verdict.pages} pages, {verdict.lost} lost",
            "; ".join(verdict.problems)[:80] or "good",
        )
        self.console.print(f"{choice.index}: {', '.join(words)}")

    def _say_problems(self, choice: DumpChoice, verdict: Verdict) -> None:
        self.console.print(f"dump {choice.index} is wrong: {json.dumps(choice.describe())}")
        for problem in verdict.problems:
            self.console.print(f"  {problem}")
        self.console.print(f"  again: soak.py {self._again(choice)}")

    def _again(self, choice: DumpChoice) -> str:
        seed, largest = self.chooser.words()
        return f"--seed {seed} --largest {largest} --only {choice.index}"

    def _end_victim(self) -> None:
        if self._victim:
            self._victim.close()
        self._victim = None

    def close(self) -> None:
        self._end_victim()
        self._reference.close()


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    environment = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=float(environment("SOAK_SECONDS") or 600),
        help="how long; default: SOAK_SECONDS, or 600",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=int(environment("SOAK_SEED") or 0),
        help="of all choices; default: SOAK_SEED, or a new one",
    )  # fmt: skip
    parser.add_argument(
        "--largest", type=int, default=1024, metavar="MIB", help="machine; 32, 512 or 1024"
    )
    parser.add_argument(
        "--only", metavar="INDEX[-LAST]", help="that dump alone, or those, --times over"
    )
    parser.add_argument("--times", type=int, default=1, help="with --only; default: 1")
    parser.add_argument("--show", action="store_true", help="say what the dumps of --only are")
    parser.add_argument("--verbose", action="store_true", help="a line for each dump")
    parser.add_argument(
        "--deadline", type=float, default=180.0, help="seconds without a step that are a hang"
    )
    parser.add_argument(
        "--tmpfs", type=Path, default=Path("/dev/shm"), help="a folder in memory; default: /dev/shm"
    )
    found = parser.parse_args(arguments)
    found.seed = found.seed or random.SystemRandom().getrandbits(32)
    return found


def indices_of(only: str | None, times: int) -> Iterator[int]:
    """Numbers of the dumps to make."""
    if only is None:
        return itertools.count()
    first, _, last = only.partition("-")
    chosen = range(int(first), int(last or first) + 1)
    return itertools.chain.from_iterable(itertools.repeat(chosen, times))


def main(arguments: list[str]) -> int:
    """The exit code."""
    args = parse(arguments)
    chooser = Chooser(args.seed, args.largest)
    if args.show:
        for index in indices_of(args.only, 1):
            print(json.dumps(chooser.choose(index).describe(), indent=1))
        return 0
    print(f"SOAK_SEED={args.seed}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        folders = []
        for parent in (None, args.tmpfs):
            folders.append(Path(tempfile.mkdtemp(prefix="livedump-soak-", dir=parent)))
            stack.callback(shutil.rmtree, folders[-1], ignore_errors=True)
        soak = Soak(chooser, *folders, args.deadline, args.verbose)
        stack.callback(soak.close)
        with suppress(KeyboardInterrupt):  # what was counted until then is told
            soak.run(indices_of(args.only, args.times), float("inf") if args.only else args.seconds)
    soak.console.print(soak.tally.table())
    print(soak.tally.line())
    return 0 if soak.tally.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
