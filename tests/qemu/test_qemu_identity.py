# SPDX-License-Identifier: GPL-2.0-or-later
"""Which guest a dump is of: a store's rules count the dumps of each guest apart by it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from livedumpfs.machines.attach import AttachedMachine
from livedumpfs.machines.qemu import QemuMachine

UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
WORDS = ("qemu-system-x86_64", "-m", "64M", "-display", "none", "-nodefaults", "-S")


@pytest.mark.parametrize(
    ("words", "identity"),
    [
        ((), ""),
        (("-name", "mail"), "mail"),
        (("-name", "guest=mail,debug-threads=on", "-uuid", UUID), f"mail {UUID}"),
        (("-uuid", UUID), UUID),
    ],
)
def test_name_and_uuid(tmp_path: Path, words: tuple[str, ...], identity: str) -> None:
    """The same whether QEMU is under us or only attached to."""
    socket = tmp_path / "qmp"
    more = ("-qmp", f"unix:{socket},server=on,wait=off")
    with contextlib.closing(QemuMachine([*WORDS, *more, *words])) as machine:
        assert machine.metadata()["identity"] == identity
        with AttachedMachine(str(socket), checked=False) as attached:
            assert attached.metadata()["identity"] == identity
