#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/troubleshooting.md: every error message of livedumpfs, its cause and its cure.

    scripts/troubleshooting.py [--check] [FILE]

The messages are read from the source (messages.py). What this file adds is what a message cannot
say of itself: the cause and the cure by kind and by part of the program, and of the system's own
words. `--check` writes nothing and ends with 1 when the document is not up to date."""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TOP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP), str(TOP / "scripts")]

import mdformat  # noqa: E402
from error_places import KINDS, PLACES, SYSTEM, Place  # noqa: E402
from messages import Message, Package  # noqa: E402

from livedumpfs.cli.outcome import option  # noqa: E402

DOCUMENT: Final = TOP / "docs" / "troubleshooting.md"
PACKAGE: Final = TOP / "livedumpfs"
_HEAD: Final = """\
# Troubleshooting

Every error message of livedumpfs, its cause and its cure. This page is made from the source by
`scripts/troubleshooting.py`, and a test holds it up to date.

- On the command line a message is `livedump: error: MESSAGE (CURE)`. In Python it is the text of
  the exception, in the mount that of `control/error`.
- A word in capitals stands for what differs from case to case: a path, a size, the system's words.
  Search this page for the part of your message that is not such a word.
- `livedump doctor` finds what this computer lacks, and `livedump status` where a dump stands.
- The cure of a row is the program's own hint where it has one, else that of its kind. What holds
  for all messages of a part stands above its table.
"""
_SYSTEM_ANCHOR: Final = "causes-in-the-systems-words"
_UNKNOWN: Final = "the name, the rights on it, and the server's settings"
_STORE_CAUSES: Final = "livedumpfs.stores.refusal", ("_KNOWN", "_STATUSES", "_TYPES")
_CORE_CAUSES: Final = "livedumpfs.dump.core_dump", ("_HINTS", "_CAUSES")


def code(text: str) -> str:
    """A template within a table."""
    fence = "``" if "`" in text else "`"
    inner = f" {text} " if fence == "``" else text
    return f"{fence}{inner}{fence}".replace("|", "\\|")


def worded(hint: str) -> str:
    """A hint as the command line shows it; what it has of Markdown's own signs is plain text."""
    text = re.sub(r"<([a-z_]+)>", lambda found: f"`{option(found[1])}`", hint)
    parts = re.split(r"(`[^`]*`)", text)
    plain = (re.sub(r"([*_\[\]<>~\\])", r"\\\1", one) for one in parts[::2])
    quoted = (*parts[1::2], "")
    text = "".join(a + b for a, b in zip(plain, quoted, strict=True))
    return text.replace("|", "\\|")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """In the form of mdformat."""
    lines = [head, ("--",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def kinds(package: Package, messages: list[Message]) -> str:
    """The classes that there are."""
    rows = []
    for kind in sorted({one.kind for one in messages}):
        base = next(name for name in KINDS if package.is_a(kind, name))
        said = KINDS[base]
        rows.append((f"`{kind}`", str(said.exit_code), said.cause, said.cure))
    return "\n## Kinds\n\n" + table(("class", "exit code", "cause", "cure"), rows)


def system() -> str:
    """Words of the system."""
    rows = [(code(words), cause, cure) for words, (cause, cure) in SYSTEM.items()]
    text = "\n## Causes in the system's words\n\nThey stand where a message has CAUSE.\n\n"
    return text + table(("CAUSE", "usual cause", "cure"), rows)


def causes(package: Package, name: str, tables: tuple[str, ...]) -> list[tuple[str, str]]:
    """Cause and cure of tables in the source."""
    module = package.modules[name]
    found = [row for one in tables for row in package.render_in(module, module.texts[one])]
    return list(dict.fromkeys(found))


def tables(package: Package) -> str:
    """What CAUSE and HINT stand for where the source has tables of them."""
    core = causes(package, *_CORE_CAUSES)
    store = causes(package, *_STORE_CAUSES)
    text = "\n## Causes of INIT and START\n\n`cannot prepare the dump: CAUSE` is INIT, "
    text += "`cannot start the dump: CAUSE` is START.\n\n"
    text += table(("CAUSE", "cure"), [(code(one), worded(cure)) for one, cure in core])
    text += "\n## Causes in object stores\n\n"
    text += "What the messages of [stores](#stores-of-dumps) end with, in the place of CAUSE.\n\n"
    text += table(("CAUSE", "cure"), [(code(one), worded(cure) or _UNKNOWN) for one, cure in store])
    return text


def dumps(package: Package) -> str:
    """What a dump that is not consistent says of itself: its first failure."""
    module = package.modules["livedumpfs.dump.verdict"]
    operations = module.texts["_ON_TARGET"]
    assert isinstance(operations, ast.Dict)
    said = [f"cannot {ast.literal_eval(one)}: {{cause}}" for one in operations.values]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef) and node.name in ("explain", "explain_loss"):
            returned = (one.value for one in ast.walk(node) if isinstance(one, ast.Return))
            for value in returned:
                texts = package.render(value, {}, node) if value is not None else ()
                said += [text for text in texts if "{" not in text and " " in text]
    rows = []
    for one in dict.fromkeys(re.sub(r"\{(\w+)\}", lambda f: f[1].upper(), one) for one in said):
        if one.startswith("cannot DOING"):
            continue
        cure = next(cure for words, cure in _FAILURES if words in one)
        rows.append((code(one), cure))
    text = "\n## Failures of a dump\n\nThe first one is what a torn or incomplete dump says in "
    text += "`info`, `status` and `control/failed`. The machine runs on in each case.\n\n"
    return text + table(("failure", "cure"), rows)


_FAILURES: Final = (
    ("of the arena writable", "see vm.max_map_count; the dump has lost that page alone"),
    (
        "of the arena",
        "the machine's memory file was cut off or its disk fails; see the system's log",
    ),
    ("cannot catch stores", "install that handler before the first arena is made, or backend uffd"),
    ("no free slot", "a faster target, a larger `--pool`, or `--policy spill`"),
    ("policy fail", "a larger `--pool`, or `--policy block` or `spill`"),
    ("more was overwritten", "a larger `--spill-limit`, or release the snapshot earlier"),
    ("cannot ", "room and health of the target; then take the dump anew"),
)
"""Words -> what to do. The first that fits."""


def place_of(message: Message) -> Place:
    """The part of the program that says it."""
    return max(
        (place for place in PLACES if any(message.file.startswith(one) for one in place.files)),
        key=lambda place: max(len(one) for one in place.files if message.file.startswith(one)),
    )


def usual(package: Package, text: str, kind: str) -> str:
    """The cure of a message that has none of its own."""
    if text.endswith("CAUSE"):
        return f"[by its cause](#{_SYSTEM_ANCHOR})"
    return KINDS[next(name for name in KINDS if package.is_a(kind, name))].short


def section(package: Package, place: Place, messages: list[Message]) -> str:
    """One part of the program."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in sorted(messages, key=lambda one: (one.text.lower(), one.hint)):
        cures = found.setdefault((one.text, one.kind), [])
        if one.hint not in cures and not re.fullmatch("[A-Z_]*", one.hint):
            cures.append(one.hint)
    rows = [
        (code(text), f"`{kind}`", "; or ".join(map(worded, cures)) or usual(package, text, kind))
        for (text, kind), cures in found.items()
    ]
    head = f"\n## {place.title}\n\nCause: {place.cause}\n\nCure: {place.cure}\n\n"
    return head + table(("message", "kind", "cure"), rows)


def page() -> str:
    """The document."""
    package = Package(PACKAGE)
    messages = list(package.messages())
    by_place: dict[str, list[Message]] = {place.title: [] for place in PLACES}
    for one in messages:
        by_place[place_of(one).title].append(one)
    parts = [_HEAD, kinds(package, messages), system(), tables(package), dumps(package)]
    parts += [
        section(package, place, by_place[place.title]) for place in PLACES if by_place[place.title]
    ]
    return formatted("".join(parts))


def formatted(text: str) -> str:
    """As `make format` would leave it."""
    options = {"wrap": 100, "number": True, "plugin": {"tables": {"compact_tables": True}}}
    return mdformat.text(text, options=options, extensions={"gfm", "tables"})


def main() -> int:
    """Returns the exit code."""
    usage = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    usage.add_argument("--check", action="store_true", help="only compare")
    usage.add_argument("file", metavar="FILE", type=Path, nargs="?", default=DOCUMENT)
    args = usage.parse_args()
    made = page()
    if args.check:
        if args.file.read_text() == made:
            return 0
        print(f"{args.file} is not up to date: `make troubleshooting`", file=sys.stderr)
        return 1
    args.file.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
