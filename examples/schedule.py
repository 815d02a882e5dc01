# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of a guest on a schedule into a store, of which the newest are kept.

    python examples/schedule.py --every 3600 --keep 24 STORE --device vm1
    python examples/schedule.py --every 86400 --keep 7 STORE --attach /run/vm/qmp.sock

What follows STORE goes to `livedump dump` as it is. A dump that fails, or is not consistent, is
said, and nothing is forgotten then; the next one is tried at its time.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time


def livedump(*words: str) -> int:
    """One command. Returns its exit code."""
    return subprocess.run(["livedump", *words], check=False).returncode


def dump_once(store: str, keep: int, options: list[str]) -> bool:
    """A dump; then what is older than the newest `keep` goes."""
    code = livedump("dump", "--quiet", *options, f"store:{store}")
    if code:
        print(f"no good dump this time (exit code {code}); nothing is forgotten", flush=True)
        return False
    gone = livedump("forget", "--quiet", store, "--keep-last", str(keep))
    return not gone and not livedump("gc", "--quiet", store)


def main() -> int:
    """Returns 1 when the last dump failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=float, default=3600.0, help="seconds between two dumps")
    parser.add_argument("--keep", type=int, default=24, help="dumps that stay")
    parser.add_argument("--count", type=int, help="so many and no more")
    parser.add_argument("store")
    args, options = parser.parse_known_args()
    good, due = True, time.monotonic()
    for number in itertools.count(1):
        good = dump_once(args.store, args.keep, options)
        if number == args.count:
            return not good
        due += args.every
        time.sleep(max(0.0, due - time.monotonic()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
