# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks QEMU itself what a command line means, before QEMU is started with all of it.

For that, QEMU is started with a few of the options only, and ends before it has memory or devices.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from livedumpfs.closing import Closing
from livedumpfs.errors import LivedumpError, MachineError, UsageError
from livedumpfs.machines.qemu.ends import cannot_start, ended_at_once
from livedumpfs.machines.qemu.qemu_options import QemuOption, quote, write_values

ANSWER_S: Final = 30.0
_BARE: Final = ("-nodefaults", "-display", "none", "-qmp", "stdio")
_FLAGS: Final = frozenset({"no-user-config", "nouserconfig"})
_MEMORY: Final = "memory."
_STRANGE: Final = ("-livedump-first", "-livedump-second")
"""Options that no QEMU has: it complains of the first one that is not the value of another
option."""
_KIND: Final = "-machine"
_VERSION: Final = re.compile(r"^QEMU emulator version (\d+\.\d+.*?)\s*$", re.MULTILINE)
Programs = Sequence[Sequence[str]]
"""Command lines that start a QEMU, in the order in which they are tried."""


@dataclass(frozen=True)
class Ram:
    """The guest memory that QEMU makes when no option names a memory backend."""

    size: int
    """Bytes."""
    name: str
    """Id of that memory, also in snapshots and migrations; empty: the machine type has none."""


def takes_value(programs: Programs, word: str) -> bool:
    """Whether the option takes the next word as its value. False also when there is no such option,
    or no QEMU."""
    asked = (_run([*program, word, *_STRANGE]) for program in programs)
    return any(done and f"{_STRANGE[1]}: invalid" in done.stderr for done in asked)


def misses_value(programs: Programs, word: str) -> LivedumpError:
    """QEMU's own error for an option without its value."""
    for program in programs:
        done = _run([*program, word])
        if done and done.returncode:
            return ended_at_once(done.returncode, done.stderr)
    return UsageError(f"QEMU's option {word} misses its value")


def ask_version(programs: Programs) -> str:
    """The version in QEMU's own words; empty: none of the programs says one."""
    for program in programs:
        done = _run([*program, "-version"])
        found = _VERSION.search(done.stdout) if done else None
        if found:
            return found[1]
    return ""


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """Run QEMU with an option for which it ends before it acts on any. None: there is no QEMU."""
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=ANSWER_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None


def ask_ram(programs: Programs, options: Sequence[QemuOption]) -> Ram | None:
    """The memory that QEMU would make. None: none can be known, as where the options ask for help.
    MachineError: the options are wrong, in QEMU's own words."""
    *others, last = programs
    for program in others:
        with contextlib.suppress(MachineError):
            return _ask_ram(program, options)
    return _ask_ram(last, options)


def _ask_ram(program: Sequence[str], options: Sequence[QemuOption]) -> Ram | None:
    words = list(_memory_words(options))
    asked = _Asked(
        [*program, "-preconfig", *words, *_BARE],
        _get("/machine", "type"),
        _get("/machine", "memory"),
    )
    with asked:
        # `-machine none` lists the memory ids of all machine types; with -preconfig the list is not
        # complete.
        kinds = _Asked([*program, "-machine", "none", *_BARE], {"execute": "query-machines"})
        with kinds:
            found, known = asked.answers(), kinds.answers()
    if found is None or known is None:
        return None
    kind = str(found[0]).removesuffix(_KIND)
    return Ram(int(found[1]["size"]), _usual_name(known[0], kind))


def _memory_words(options: Sequence[QemuOption]) -> Iterator[str]:
    """The options on which the size of the memory depends. The rest of -machine is left out: it may
    name objects that do not exist here."""
    for option in options:
        if option.name == "m":
            yield from ("-m", option.value)
        elif option.name in _FLAGS:
            yield f"-{option.name}"
        elif option.name == "machine":
            values = option.values
            kept = write_values({k: v for k, v in values.items() if k.startswith(_MEMORY)})
            # The word may be `help`, which is no value of `type`.
            words = [word for word in (quote(values.get("type", "")), kept) if word]
            if words:
                yield from ("-machine", ",".join(words))


def _usual_name(machines: Sequence[Mapping[str, Any]], kind: str) -> str:
    return next((str(one.get("default-ram-id", "")) for one in machines if one["name"] == kind), "")


def _get(path: str, name: str) -> dict[str, object]:
    return {"execute": "qom-get", "arguments": {"path": path, "property": name}}


class _Asked(Closing):
    """A QEMU that answers requests and ends."""

    def __init__(self, words: Sequence[str], *requests: Mapping[str, object]) -> None:
        """Start it. MachineError: it does not start."""
        self._count = len(requests)
        numbered = ({**one, "id": number} for number, one in enumerate(requests))
        said = [{"execute": "qmp_capabilities"}, *numbered, {"execute": "quit"}]
        self._requests = "".join(json.dumps(one) + "\n" for one in said)
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise cannot_start(words[0], error) from error

    def answers(self) -> list[Any] | None:
        """The answers in the order of the requests. None: the options asked for something else, and
        QEMU did that. MachineError."""
        try:
            out, complaints = self._process.communicate(self._requests, ANSWER_S)
        except subprocess.TimeoutExpired as error:
            raise MachineError(
                f"QEMU does not say within {ANSWER_S:g} s what memory its options mean",
                hint="what starts it must pass its arguments, input and output on",
            ) from error
        found = dict(_returned(out))
        if len(found) == self._count:
            return [found[number] for number in range(self._count)]
        if self._process.returncode:
            raise ended_at_once(self._process.returncode, complaints)
        return None

    def close(self) -> None:
        """End QEMU, also while it runs."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                stream.close()


def _returned(text: str) -> Iterator[tuple[int, Any]]:
    """(number of the request, answer) for each answer. Other lines may come from a wrapper of
    QEMU."""
    for line in text.splitlines():
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(answer, dict) and "id" in answer and "return" in answer:
            yield int(answer["id"]), answer["return"]
