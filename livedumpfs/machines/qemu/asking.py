# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU itself says of a command line, before it is started with all of it.

It is started with a few of the options only, and never as far as to have memory or devices.
"""

from __future__ import annotations

import contextlib
import json
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
"""Options that no QEMU has: it complains of the first one that is none's value."""
_KIND: Final = "-machine"
Programs = Sequence[Sequence[str]]
"""Ways to start a QEMU: the next one counts where one does not answer."""


@dataclass(frozen=True)
class Ram:
    """What QEMU makes as the guest's memory when nothing names a backend."""

    size: int
    """Bytes."""
    name: str
    """Of that memory, in snapshots and migrations too; empty: the machine's type has none."""


def takes_value(programs: Programs, word: str) -> bool:
    """The option takes the next word. False also where there is no such option, or no QEMU."""
    asked = (_run([*program, word, *_STRANGE]) for program in programs)
    return any(done and f"{_STRANGE[1]}: invalid" in done.stderr for done in asked)


def misses_value(programs: Programs, word: str) -> LivedumpError:
    """What QEMU says of an option whose value is not there."""
    for program in programs:
        done = _run([*program, word])
        if done and done.returncode:
            return ended_at_once(done.returncode, done.stderr)
    return UsageError(f"QEMU's option {word} misses its value")


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """With options that QEMU refuses before it looks at any. None: there is no QEMU."""
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=ANSWER_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None


def ask_ram(programs: Programs, options: Sequence[QemuOption]) -> Ram | None:
    """None: there is no such memory to show, as where the options ask for help. MachineError: in
    QEMU's own words, what is wrong with the options."""
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
        # Only a machine that is complete knows them all.
        kinds = _Asked([*program, "-machine", "none", *_BARE], {"execute": "query-machines"})
        with kinds:
            found, known = asked.answers(), kinds.answers()
    if found is None or known is None:
        return None
    kind = str(found[0]).removesuffix(_KIND)
    return Ram(int(found[1]["size"]), _usual_name(known[0], kind))


def _memory_words(options: Sequence[QemuOption]) -> Iterator[str]:
    """Those on which the size of the memory depends. Another part of -machine may name what is not
    there."""
    for option in options:
        if option.name == "m":
            yield from ("-m", option.value)
        elif option.name in _FLAGS:
            yield f"-{option.name}"
        elif option.name == "machine":
            values = option.values
            kept = write_values({k: v for k, v in values.items() if k.startswith(_MEMORY)})
            # The type without its key may be `help`.
            words = [word for word in (quote(values.get("type", "")), kept) if word]
            if words:
                yield from ("-machine", ",".join(words))


def _usual_name(machines: Sequence[Mapping[str, Any]], kind: str) -> str:
    return next((str(one.get("default-ram-id", "")) for one in machines if one["name"] == kind), "")


def _get(path: str, name: str) -> dict[str, object]:
    return {"execute": "qom-get", "arguments": {"path": path, "property": name}}


class _Asked(Closing):
    """A QEMU that answers and ends."""

    def __init__(self, words: Sequence[str], *requests: Mapping[str, object]) -> None:
        """MachineError: it does not start."""
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
        """In the order of the requests. None: it was asked for something else, and did that.
        MachineError."""
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
        """Also in the middle of it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                stream.close()


def _returned(text: str) -> Iterator[tuple[int, Any]]:
    """By number. What starts QEMU may print, too."""
    for line in text.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and "id" in answer and "return" in answer:
            yield int(answer["id"]), answer["return"]
