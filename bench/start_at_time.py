# SPDX-License-Identifier: GPL-2.0-or-later
"""By how much START at a time of the wall clock misses it: instant - time, of a host of its own,
asked through its mount as a fleet does.

    python bench/start_at_time.py [--count 200] [--ahead 0.05]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from livedumpfs.client import Client

DEADLINE_S = 300.0
HOST = """
import sys
from livedumpfs.machines import UnicornMachine
from livedumpfs.mount.host import Host
machine = UnicornMachine("64MiB", 2, rate=2000)
Host(machine, sys.argv[1]).run(lambda: (machine.wait_ready(), print("ready", flush=True)))
"""


def missed(client: Client, ahead_ns: int) -> int:
    """Nanoseconds, of one dump."""
    dump_id = client.init_as(None, None)
    found = client.start_as(dump_id, time.time_ns() + ahead_ns, int(DEADLINE_S * 1e9))
    client.release()
    return found.error_ns


def load() -> str:
    """Of the last minute."""
    return Path("/proc/loadavg").read_text().split()[0]


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--ahead", type=float, default=0.05, help="seconds")
    args = parser.parse_args()
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        host = subprocess.Popen(
            [sys.executable, "-c", HOST, folder],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_RUNTIME_DIR": folder},
        )  # fmt: skip
        try:
            assert host.stdout and host.stdout.readline() == "ready\n"
            with Client(os.path.join(folder, "livedump")) as client:
                found = sorted(missed(client, int(args.ahead * 1e9)) for _ in range(args.count))
        finally:
            host.terminate()
            host.wait(DEADLINE_S)
    told = {
        "count": len(found),
        "median_us": found[len(found) // 2] / 1e3,
        "p99_us": found[len(found) * 99 // 100] / 1e3,
        "worst_us": found[-1] / 1e3,
        "load": f"{before} to {load()}",
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
