# SPDX-License-Identifier: GPL-2.0-or-later
"""The measurement of many writers on another computer, which needs neither Python nor libraries.

many_writers.py build           build the static program here, and print how it is run there
many_writers.py show FILE...    print its JSON as tables in Markdown
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from measure_many import markdown, tables
from peers.build import PeerError, static_peers

RUN = "many budget=480 size=2147483648 target=/dev/shm/many-target > many.json"


def build() -> None:
    """Build, and print the path and the command line."""
    program = static_peers()
    print(program)
    print(f"there, as root, at most 480 s: ./{program.name} {RUN}")


def show(path: Path) -> None:
    """Print all tables of one run. SystemExit: the file is no such run."""
    try:
        found = json.loads(path.read_text())
        made = tables(found)
    except (OSError, ValueError, KeyError, PeerError) as error:
        raise SystemExit(f"cannot show {path}: {error}: give the output of peers many") from error
    for table in made:
        print(f"\n**{table.title}**\n")
        print("\n".join(markdown(table)))
    print("\n" + "\n".join(f"- {note}" for table in made for note in table.notes))
    for table in made:
        for bar in table.bars:
            side = "at least" if bar.at_least else "at most"
            held = "held" if bar.held else "missed"
            print(f"- {bar.text}: {bar.found:.2f}, {side} {bar.limit:g}, {held}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("build", "show"))
    parser.add_argument("files", nargs="*", type=Path, help="JSON of `peers many`")
    args = parser.parse_args()
    if args.what == "build":
        build()
    elif not args.files:
        parser.error("show needs the file that the program wrote")
    for path in args.files if args.what == "show" else ():
        show(path)


if __name__ == "__main__":
    main()
