# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture of `watch`, its keys and its figures; and the small form of it above the bar."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from livedumpfs.cli.bar import bar
from livedumpfs.cli.main import main
from livedumpfs.cli.outcome import Exit
from livedumpfs.cli.page_colours import cells, has_colours, legend
from livedumpfs.cli.watch_figures import History, Sample, histogram
from livedumpfs.cli.watch_keys import Dialogue, TypedStep, Wish
from livedumpfs.cli.watch_screen import Look, lines, screen

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"
ID = "0123456789abcdef" * 2
MIB = 1 << 20


def stats(state: str = "SWEEP", done: int = 0, **more: Any) -> dict[str, Any]:
    counters = {
        "granule_size": 64 << 10, "granules": 1024, "faults": done >> 16, "steals": 3,
        "slot_waits": 2, "slot_wait_ns": 5_000_000, "slots": 7, "bytes_written": done,
        "pause_ns": 265_000, "stall_max_ns": 900_000,
        "handler_ns": [0] * 12 + [9000, 100, 0, 1] + [0] * 24,
    }  # fmt: skip
    found = {
        "state": state, "id": ID, "verdict": None, "so_far": "consistent", "target": "/b/vm.elf",
        "reason": None, "machine": {"name": "ledger"}, "counters": counters,
        "progress": {"total": 64 * MIB, "done": done, "lost": 0},
    }  # fmt: skip
    return {**found, **more}


def history(*samples: Sample) -> History:
    found = History()
    for one in samples:
        found.add(one)
    return found


def half_way() -> History:
    pages = b"S" * 500 + b"s" * 12 + b"." * 500 + b"F" * 11 + b"L"
    return history(Sample(10.0, stats(done=16 * MIB)), Sample(12.0, stats(done=32 * MIB), pages))


def plain(look: Look, of: History | None = None, dialogue: Dialogue | None = None) -> list[str]:
    found = lines(of or half_way(), dialogue or Dialogue(), look)
    return [line.plain for line in found]


def test_what_it_says_at_80x24_in_letters() -> None:
    shown = plain(Look(80, 24))
    assert len(shown) == 24 and max(map(len, shown)) <= 80
    text = "\n".join(shown)
    for said in (
        "livedump watch  ledger  64 MiB  1024 granules of 64 KiB", "SWEEP  consistent so far",
        "/b/vm.elf", "[##########----------]", "50%", "32 MiB of 64 MiB", "8 MiB/s  4 s to go",
        "faults 512  128/s", "stolen 3", "waits for a slot 2, 5 ms", "slots 7", "written 32 MiB",
        "machine stopped for 265 us", "longest 900 us", "4.1 us |", "| 65.5 us", "q quit",
        "F by fault",
    ):  # fmt: skip
        assert said in text, f"{said}\n{text}"
    rows = shown[2:18]
    assert rows[0].startswith("0000000 SSS") and rows[-1].endswith("L")
    assert rows[8].startswith("2000000 ") and "s" in rows[7]


@pytest.mark.parametrize("coloured", [True, False])
@pytest.mark.parametrize("height", [0, 1, 2, 3, 5, 8, 11, 24, 60])
@pytest.mark.parametrize("width", [0, 1, 2, 9, 40, 59, 60, 80, 300])
def test_a_terminal_of_any_size(width: int, height: int, coloured: bool) -> None:
    look = Look(width, height, coloured=coloured, ascii_only=not coloured)
    for of in (half_way(), history(), history(Sample(1.0, stats("UNDEFINED", id=None)))):
        for dialogue in (Dialogue(), Dialogue(question="sure? " * 9), Dialogue(notice="no " * 40)):
            found = lines(of, dialogue, look, silent_s=float(width))
            assert len(found) <= height and all(len(line) <= width for line in found)
            console = Console(file=io.StringIO(), width=max(width, 1), height=max(height, 1))
            console.print(screen(of, dialogue, look))


def test_the_map_stays_longest_in_a_low_terminal() -> None:
    rows = [len(re.findall("[SLF.s]{60}", "\n".join(plain(Look(80, n))))) for n in range(2, 15)]
    assert rows == [1, 2, *[3] * 8, 4, 5, 6]
    assert "quit" in plain(Look(80, 1))[0]


def test_a_terminal_without_unicode() -> None:
    text = "\n".join(plain(Look(80, 24, ascii_only=True)))
    assert text.isascii() and "|85 1|" in text
    assert not "\n".join(plain(Look(80, 24))).isascii()


def test_a_map_in_colours_and_with_letters_on_them() -> None:
    coloured = cells("..SL", coloured=True)
    assert coloured.plain == "    "
    assert [str(span.style) for span in coloured.spans] == [
        "white on bright_black", "white on blue", "white on red",
    ]  # fmt: skip
    assert cells("..SL", coloured=True, lettered=True).plain == "..SL"
    assert cells("..SL", coloured=False).plain == "..SL" and not cells("S", coloured=False).spans
    assert "tT stolen" in legend(coloured=False).plain


def test_no_color_and_terminals_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    def console() -> Console:
        return Console(file=io.StringIO(), force_terminal=True)

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert has_colours(console())
    monkeypatch.setenv("TERM", "dumb")
    assert not has_colours(console())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colours(console())


def test_other_users_words_are_escaped() -> None:
    hostile = stats(target="/b/\x1b[2Jvm", reason="\x07")
    shown = "\n".join(plain(Look(80, 24), history(Sample(1.0, hostile))))
    assert "\x1b" not in shown and "\x07" not in shown
    dialogue = Dialogue()
    dialogue.typed("a", hostile)
    assert "\x1b" not in dialogue.question


def test_before_the_first_dump_and_with_an_older_host() -> None:
    nothing = stats("UNDEFINED", id=None, target=None, so_far=None)
    assert "no dump yet" in plain(Look(80, 24), history(Sample(1.0, nothing)))[2]
    assert "earlier version" in plain(Look(80, 24), history(Sample(1.0, stats())))[2]


# ---------------------------------------------------------------------- figures


def test_rates_are_of_the_last_seconds_and_of_one_dump() -> None:
    found = history(*(Sample(float(n), stats(done=n * MIB)) for n in range(20)))
    rates = found.rates()
    assert (rates.saved, rates.written, rates.left_s) == (MIB, MIB, 45.0)
    assert rates.faults == 16 and found.samples[0].at == 16.0
    found.add(Sample(21.0, stats(id="ff" * 16)))
    assert found.rates().saved is None and found.pages == b""


def test_no_time_is_left_but_in_the_sweep() -> None:
    found = history(*(Sample(float(n), stats("START", done=n * MIB)) for n in range(3)))
    assert found.rates().saved == MIB and found.rates().left_s is None


def test_the_last_map_stays_after_the_release() -> None:
    found = history(Sample(1.0, stats(), b"SSF"), Sample(2.0, stats("UNINIT")))
    assert found.pages == b"SSF"


def test_the_histogram_without_its_ends() -> None:
    assert histogram([0, 0, 5, 0, 1, 0]) == (2, [5, 0, 1])
    assert histogram([0] * 40) == (0, [])


# ------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("state", "target", "key", "step", "asks", "says"),
    [
        ("START", "/b", "s", TypedStep(Wish.SWEEP, ID), "", ""),
        ("INIT", "/b", "s", TypedStep(Wish.SWEEP, ID), "", ""),
        ("SWEEP", "/b", "s", None, "", "swept already"),
        ("UNINIT", "/b", "a", None, "", "there is no dump"),
        ("UNDEFINED", None, "r", None, "", "there is no dump"),
        ("FINISH", "/b", "r", None, "It stays on /b", ""),
        ("FINISH", "/b", "a", None, "", "r releases it"),
        ("START", None, "r", None, "gone then", ""),
        ("START", "/b", "r", None, "", "s sweeps it, a breaks it off"),
        ("SWEEP", "/b", "r", None, "", "a breaks it off"),
        ("SWEEP", "/b", "a", None, "incomplete: /b", ""),
        ("INIT", "/b", "a", None, "incomplete: /b", ""),
        ("SWEEP", "/b", "q", TypedStep(Wish.QUIT), "", ""),
        ("SWEEP", "/b", "\x1b[A", None, "", ""),
    ],
)
def test_what_a_key_does(
    state: str, target: str | None, key: str, step: TypedStep | None, asks: str, says: str
) -> None:
    dialogue, shown = Dialogue(), stats(state, target=target)
    assert dialogue.typed(key, shown) == step
    assert asks in dialogue.question and says in dialogue.notice
    assert bool(asks) == bool(dialogue.question) and bool(says) == bool(dialogue.notice)
    yes = TypedStep(Wish.RELEASE, ID) if asks else None
    assert dialogue.typed("y", stats("SWEEP", id="ff" * 16)) == yes
    assert dialogue.typed("y", shown) is None


@pytest.mark.parametrize("key", ["n", "q", "\r", "a", "\x1b"])
def test_any_other_key_is_a_no(key: str) -> None:
    dialogue = Dialogue()
    dialogue.typed("a", stats())
    assert dialogue.typed(key, stats()) is None and not dialogue.question
    assert dialogue.typed("y", stats()) is None


def test_letters_are_a_switch() -> None:
    dialogue = Dialogue()
    dialogue.typed("l", stats())
    assert dialogue.lettered
    dialogue.typed("l", stats())
    assert not dialogue.lettered


# --------------------------------------------------------------- command and bar


def test_without_a_terminal_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "watch needs a terminal" in said and said.count("\n") == 1


def test_a_terminal_without_a_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livedumpfs.cli.watch_command.is_terminal", lambda stream: True)
    monkeypatch.setenv("TERM", "dumb")
    assert main(["watch"]) == Exit.USAGE
    assert "move its cursor" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("known", [True, False])
def test_the_bar_has_the_map_above_it(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "40", "LINES": "9"}.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    with bar("dump", stream) as shown:
        shown.update(10, 20, 0)
        shown.picture(lambda: b"SSSSSF....." * known)
    text = stream.getvalue()
    assert ("S" * 15 in text) is known and "dump" in text


@pytest.mark.parametrize("name", ["watch", "dump", "doctor"])
def test_a_figure_needs_no_network(name: str) -> None:
    text = (FIGURES / f"{name}.svg").read_text()
    assert "url(http" not in text and "@font-face" not in text and "livedump" in text
    assert os.access(FIGURES.parents[1] / "scripts" / "figures.py", os.X_OK)
