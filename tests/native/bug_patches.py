# SPDX-License-Identifier: GPL-2.0-or-later
"""The known bugs of the protocol: patches of native/, one a file of interleave/bugs/. Above the
patch stand lines of `Word: value`: what the bug is (Bug), the case of interleave/ that must find it
(Case), a pattern of what is said then (Said), and how it is searched for where the usual way is too
slow (Options). Names in capitals are those of tests/model/.

A patch must apply without fuzz. When the code around it has changed:

    make bugs          # or: .venv/bin/python -m tests.native.bug_patches [NAME...]

applies each patch as well as it can, and writes it anew. One that does not apply at all is named;
its copy of the sources then lies in build/bugs/NAME/, with the parts that did not fit in .rej
files: put the bug in there by hand, remove those files, and call it again."""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent / "interleave" / "bugs"
BY_HAND = TOP / "build" / "bugs"
NO_FUZZ, ANY_CONTEXT = 0, 3  # lines of context that may differ at each end
WORDS = {"Bug", "Case", "Said"}
PATCH_S = 60


class DoesNotApplyError(Exception):
    """The text says which patch, and why."""


@dataclass(frozen=True)
class Bug:
    file: Path
    what: str
    case: str
    said: str
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.file.stem

    @classmethod
    def read(cls, file: Path) -> Bug:
        head = file.read_text().split("\n--- ", 1)[0]
        words = dict(re.findall(r"^(\w+): (.+)$", head, re.MULTILINE))
        options = tuple(words.pop("Options", "").split())
        if words.keys() != WORDS:
            raise ValueError(f"{file.name}: missing or unknown: {words.keys() ^ WORDS}")
        return cls(file, words["Bug"], words["Case"], words["Said"], options)

    def changed(self) -> list[Path]:
        """Files that it changes, from the top of the tree."""
        return [Path(p) for p in re.findall(r"^\+\+\+ b/(\S+)", self.file.read_text(), re.M)]

    def apply(self, tree: Path, fuzz: int = NO_FUZZ) -> None:
        """Put the bug into a copy of the tree. Raises DoesNotApplyError."""
        command = ["patch", "-p1", "--batch", "--forward", "--no-backup-if-mismatch"]
        done = subprocess.run(
            [*command, f"--fuzz={fuzz}", "--input", str(self.file)],
            cwd=tree, capture_output=True, text=True, check=False, timeout=PATCH_S,
        )  # fmt: skip
        if done.returncode:
            raise DoesNotApplyError(
                f"the patch {self.file.name} does not apply to native/ (make bugs writes it anew):"
                f"\n{done.stdout}{done.stderr}"
            )


def bugs(folder: Path = FOLDER) -> list[Bug]:
    return [Bug.read(file) for file in sorted(folder.glob("*.patch"))]


def _difference(old: Path, new: Path, name: Path) -> str:
    before, after = ((tree / name).read_text().splitlines(True) for tree in (old, new))
    return "".join(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}"))


def refresh(bug: Bug, top: Path = TOP, by_hand: Path = BY_HAND) -> bool:
    """Write its patch anew, for the sources as they are; whether it changed. Raises
    DoesNotApplyError."""
    copy = by_hand / bug.name
    if not copy.exists():
        shutil.copytree(top / "native", copy / "native")
        bug.apply(copy, ANY_CONTEXT)
    if left := list(copy.rglob("*.rej")):
        raise DoesNotApplyError(
            f"the patch {bug.file.name} is not done: {left[0]} is still there\n"
        )
    names = sorted(p.relative_to(copy) for p in copy.rglob("*.[ch]"))
    text = "".join(_difference(top, copy, name) for name in names)
    before = bug.file.read_text()
    after = before[: before.index("--- a/")] + text
    bug.file.write_text(after)
    shutil.rmtree(copy)
    return after != before


def main(names: list[str]) -> int:
    failed = 0
    for bug in bugs():
        if names and bug.name not in names:
            continue
        try:
            if refresh(bug):
                print(f"{bug.file.name}: written anew")
        except DoesNotApplyError as error:
            failed = 1
            print(f"{error}put it into {BY_HAND / bug.name} by hand", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
