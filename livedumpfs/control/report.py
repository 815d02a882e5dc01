# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host tells: the status line, STATUS, stats.json, and the files of machine/."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Final

from livedumpfs import __version__, abi, pause
from livedumpfs.control.settings_files import Settings
from livedumpfs.dump import LiveDump
from livedumpfs.errors import LivedumpError, printable
from livedumpfs.machines import HasStatus, Machine, NumbersVcpus, PhysicalRange, Registers
from livedumpfs.option import rows_of
from livedumpfs.request import fill_status

MAX_RANGES: Final = 1000
"""Ranges of lost pages that stats.json lists."""


def status_line(state: abi.State, dump: LiveDump) -> str:
    """What read(2) on the misc device gives."""
    progress = dump.progress()
    words = [
        f"state={state.name}",
        f"verdict={dump.verdict or '-'}",
        f"so_far={dump.so_far or '-'}",
        f"done={progress.done}",
        f"total={progress.total}",
        f"lost={progress.lost}",
        f"target={printable(dump.target_path or '-')}",
    ]
    return " ".join(words) + "\n"


def state_text(state: abi.State) -> str:
    """control/state: the number, an empty line, a legend."""
    legend = [f"LIVEDUMP_STATE_{one.name} = {int(one)}" for one in abi.State]
    return "\n".join((str(int(state)), "", *legend)) + "\n"


def status_of(state: abi.State, dump: LiveDump, settings: Settings) -> abi.Status:
    """struct livedump_status. `settings`: those that INIT took."""
    counters = dump.counters()
    progress = dump.progress()
    status = abi.Status(version=abi.VERSION, state=state)
    status.so_far = abi.Verdict[(dump.so_far or "none").upper()]
    status.verdict = abi.Verdict[(dump.verdict or "none").upper()]
    chosen = settings.dump
    if dump.settings.backend:
        chosen = replace(chosen, backend=dump.settings.backend, arming=dump.settings.arming)
    elif not chosen.backend:
        chosen = chosen.for_machine(dump.machine.backends, lambda: "auto")
    fill_status(status, chosen, rows_of(type(chosen)))
    status.ended = ended(state, dump)
    status.bytes_total, status.bytes_done = progress.total, progress.done
    for name in abi.STATUS_COUNTERS:
        setattr(status, name, getattr(counters, name))
    failure = counters.failure
    status.failure = abi.Failure(failure.operation, failure.error, failure.pfn)
    status.target = (dump.target_path or "").encode(errors="surrogateescape")[: abi.PATH_MAX - 1]
    return status


def ended(state: abi.State, dump: LiveDump) -> abi.Ended:
    """Why there is no dump any more."""
    if state is not abi.State.UNINIT:
        return abi.Ended.NOT
    return abi.Ended.AGE if dump.expired else abi.Ended.RELEASE


def stats(state: abi.State, dump: LiveDump, settings: Settings, machine: Machine) -> str:
    """stats.json. Its keys are documented in docs/control.md."""
    counters = dump.counters()
    found = {
        "version": __version__,
        "state": state.name,
        "id": dump.dump_id.hex() or None,
        "held": _held(dump),
        "verdict": dump.verdict,
        "so_far": dump.so_far,
        "failure": dump.failure,
        "reason": dump.reason,
        "expired": dump.expired,
        "released": dump.released,
        "pause": pause.parts(asdict(counters)),
        "lost_pages": dump.lost_pages()[:MAX_RANGES],
        "target": dump.target_path,
        "progress": asdict(dump.progress()),
        "counters": asdict(counters),
        "increment": _increment(dump),
        "settings": {"output": settings.output, "type": settings.type, **asdict(settings.dump)},
        "machine": machine.metadata(),
    }
    return json.dumps(found, indent=1, default=str) + "\n"


def _held(dump: LiveDump) -> dict[str, object] | None:
    """The last HOLD of the dump that there is."""
    held = dump.held
    return None if held is None else {"now": dump.is_held, **asdict(held)}


def _live(machine: Machine) -> Mapping[int, Registers]:
    """By the numbers of the vCPUs."""
    if isinstance(machine, NumbersVcpus):
        return machine.registers_by_number()
    return dict(enumerate(machine.registers()))


def _at_start(machine: Machine) -> Mapping[int, Registers] | None:
    """Of the last START; None: there was none."""
    try:
        if isinstance(machine, NumbersVcpus):
            return machine.snapshot_by_number()
        return dict(enumerate(machine.snapshot_registers()))
    except LivedumpError:
        return None


def _increment(dump: LiveDump) -> dict[str, object]:
    found = dump.increment
    return {**asdict(found), "since": found.since.hex() or None}


def registers_text(machine: Machine) -> str:
    """machine/registers: a block for each vCPU, one register a line in hexadecimal: live, and
    beside it at the last START if it was there. One that is there no more has `-` for the first."""
    live, snapshot = _live(machine), _at_start(machine) or {}
    return "\n".join(
        f"vcpu {number}\n" + _registers_block(live.get(number, {}), snapshot.get(number, {}))
        for number in sorted({*live, *snapshot})
    )


def _registers_block(live: Registers, snapshot: Registers) -> str:
    lines = (
        f"{name:<8} {_word(live, name)}" + (f" {_word(snapshot, name)}" if name in snapshot else "")
        for name in live or snapshot
    )
    return "".join(f"{line}\n" for line in lines)


def _word(registers: Registers, name: str) -> str:
    return f"{registers[name]:#018x}" if name in registers else f"{'-':<18}"


def registers_json(machine: Machine) -> str:
    """machine/registers.json: live, and those of the last START (null: there was none). A place in
    both lists is that of the same vCPU, whose number is in `numbers`; null: it is, or was, not
    there."""
    live, snapshot = _live(machine), _at_start(machine)
    numbers = sorted({*live, *(snapshot or {})})
    found = {
        "numbers": numbers,
        "live": [_plain(live, number) for number in numbers],
        "snapshot": None if snapshot is None else [_plain(snapshot, one) for one in numbers],
    }
    return json.dumps(found, indent=1) + "\n"


def _plain(registers: Mapping[int, Registers], number: int) -> dict[str, int] | None:
    return dict(registers[number]) if number in registers else None


def map_text(ranges: Sequence[PhysicalRange]) -> str:
    """machine/map: first and last physical address, and where that lies in the arena."""
    return "".join(
        f"{one.start:016x}-{one.start + one.size - 1:016x} arena {one.arena_offset:#x}\n"
        for one in ranges
    )


def state_of_machine(machine: Machine) -> str:
    """machine/state: kind and architecture, then a line for each vCPU."""
    lines = [f"{machine.name} {machine.architecture}"]
    if isinstance(machine, HasStatus):
        lines += [str(one) for one in machine.status()]
    return "\n".join(lines) + "\n"
