# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line without a host: options, texts, progress, how errors end."""

from __future__ import annotations

import argparse
import errno
import io
import os

import pytest
from rich.console import Console

from livedumpfs.cli import arguments as options
from livedumpfs.cli import text
from livedumpfs.cli.bar import Bar
from livedumpfs.cli.connect import init_options
from livedumpfs.cli.main import build_parser, main
from livedumpfs.cli.outcome import Exit, exit_code, sentence
from livedumpfs.cli.progress import Lines
from livedumpfs.errors import HostError, InvalidDump, TargetError, UsageError

COUNTERS = {
    "granule_size": 16384,
    "granules": 32768,
    "by_fault": 3000,
    "by_sweep": 29000,
    "holes": 768,
    "lost": 0,
    "faults": 3100,
    "steals": 2,
    "stall_max_ns": 1_100_000,
    "slot_waits": 1,
    "pause_ns": 212_000,
    "quiesce_ns": 118_000,
    "arm_ns": 83_000,
    "bytes_written": 512 << 20,
    "sweep_start_ns": 1_000_000_000,
    "drained_ns": 2_000_000_000,
    "instant_wall_ns": 1_700_000_000_123_456_789,
}


@pytest.mark.parametrize(
    ("written", "value"), [("0.25", 0.25), ("25%", 0.25), ("100%", 1.0), ("1", 1.0)]
)
def test_share(written: str, value: float) -> None:
    assert options.share(written) == value


@pytest.mark.parametrize("written", ["0", "-1", "1.01", "101%", "half", "", "%", "nan"])
def test_share_refuses(written: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a share"):
        options.share(written)


@pytest.mark.parametrize("written", ["0", "-4096", "4 apples", "", "1.5G"])
def test_size_refuses(written: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        options.size(written)


@pytest.mark.parametrize("written", ["0", "-1", "inf", "nan", "soon"])
def test_seconds_refuses(written: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a time"):
        options.seconds(written)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["dump", "a", "b"],
        ["dump", "a", "--policy", "hope"],
        ["dump", "a", "--pool", "0"],
        ["host", "--vcpus", "5"],
        ["host", "--dirty", "200%"],
        ["host", "--ra", "1G"],  # no abbreviations: they would break when options are added
        ["status", "extra"],
        ["finish", "--timeout", "0"],
        ["dump", "a", "--max-age", "soon"],
        ["dump", "a", "--max-age", "0"],
        ["dump", "a", "--level", "-1"],
        ["dump", "a", "--compress", "bzip2"],
        ["dump", "a", "--table", "front"],
        ["init", "a", "--no-target"],
    ],
)
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("livedump: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--format", "elf", "--compress", "zstd"],
            "--compress goes with --format kdump, not with",
        ),
        (["--format", "raw", "--level", "3"], "--level goes with --format kdump, not with raw"),
        (["--format", "raw", "--threads", "3"], "--threads goes with --format kdump"),
        (["--format", "kdump", "--table", "tail"], "--table goes with --format raw"),
        (["--format", "elf", "--sidecar", "x"], "--sidecar goes with --format raw"),
        (["--format", "raw", "--table", "tail", "--sidecar", "x"], "does not go with --table tail"),
    ],
)
@pytest.mark.parametrize("command", ["dump", "init"])
def test_options_of_another_format(
    command: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before any host is asked."""
    assert main([command, "/no/where", "--device", "/no/host", *words]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


@pytest.mark.parametrize("option", ["--spill-limit=1M", "--max-age=3s"])
def test_options_of_a_start_without_a_target(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", "--device", "/no/host", option]) == Exit.USAGE
    assert f"{option.partition('=')[0]} goes with --no-target" in capsys.readouterr().err


def test_settings_reach_the_client() -> None:
    packing = ["--compress", "zlib", "--level", "9", "--threads", "2"]
    words = ["dump", "t", "--format", "kdump", *packing, "--max-age", "5min"]
    options = init_options(build_parser().parse_args(words), release_on_close=True)
    assert options.values == {
        "format": "kdump", "compression": "zlib", "level": 9, "threads": 2, "max_age": 300,
    }  # fmt: skip
    assert options.release_on_close
    words = ["init", "t", "--format", "raw", "--table", "tail"]
    options = init_options(build_parser().parse_args(words), release_on_close=False)
    assert options.values == {"format": "raw", "table": "tail"} and not options.release_on_close


def test_pages_as_text() -> None:
    assert text.pages([]) == ""
    assert text.pages([[1, 2], [16, 32]]) == "pages 0x1, 0x10-0x1f"
    assert text.pages([[n, n + 1] for n in range(9)], 8).endswith("0x7 and 1 more range")


def test_release_has_the_kernel_patches_name_too() -> None:
    parse = build_parser().parse_args
    assert parse(["uninit"]).run is parse(["release"]).run


def test_errors_end_as_promised() -> None:
    assert exit_code(InvalidDump("x")) == 3
    assert exit_code(UsageError("x")) == 2
    assert exit_code(TargetError("x", errno=errno.ENOSPC)) == 1
    assert exit_code(OSError(errno.EIO, "x")) == 1


def test_error_sentences() -> None:
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "/no/where")
    assert sentence(missing) == "/no/where: No such file or directory"
    assert sentence(OSError(errno.EIO, "whatever")) == os.strerror(errno.EIO)
    ours = HostError("no host is running", errno=errno.ENOENT, hint="start one")
    assert sentence(ours) == "no host is running (start one)"
    assert sentence(ValueError("two\nlines")) == "two lines"


@pytest.mark.parametrize("command", ["info", "verify"])
def test_no_such_target(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "/no/where"]) == Exit.FAILED
    assert capsys.readouterr().err.startswith("livedump: error: ")


@pytest.mark.parametrize("command", ["info", "verify"])
def test_not_a_dump(
    command: str, tmp_path: os.PathLike[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = os.path.join(tmp_path, "file")
    with open(file, "wb") as out:
        out.write(b"no dump" * 1000)
    assert main([command, file]) == Exit.NOT_VALID
    out_text, err = capsys.readouterr()
    assert out_text == ""
    assert err.startswith("livedump: error: ")
    assert err.count("\n") == 1


def test_no_such_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--device", "/no/where/livedump"]) == Exit.FAILED
    assert "/no/where/livedump" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        try:
            os._exit(main(["--version"]))
        except SystemExit:
            os._exit(0)
        except BaseException:
            os._exit(99)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 1)


def test_texts() -> None:
    assert text.faults(COUNTERS) == (
        "3100 faults, 2 steals, longest stall 1.1 ms, 1 wait for a slot"
    )
    assert text.saved(COUNTERS) == (
        "32768 of 16 KiB: 3000 by fault, 29000 by sweep, 768 holes, 0 lost"
    )
    assert text.throughput(COUNTERS) == "512 MiB in 1 s, 512 MiB/s"
    assert text.instant(COUNTERS["instant_wall_ns"]).startswith("2023-11-1")


def test_texts_before_anything_happened() -> None:
    assert text.table(text.counter_rows(dict.fromkeys(COUNTERS, 0))) == ""
    # Under way: bytes, and no rate yet.
    assert text.throughput({**COUNTERS, "drained_ns": 0}) == "512 MiB"


def test_table_aligns_and_leaves_out() -> None:
    assert text.table([("a", "1"), ("long", "2"), ("none", "")]) == "a     1\nlong  2"


def test_lines_are_one_a_second_with_rate_and_time_to_go() -> None:
    now = 0.0
    stream = io.StringIO()
    with Lines("dump", stream, lambda: now) as shown:
        for now in (0.0, 0.3, 0.9, 1.0, 1.5, 2.1):
            shown.update(int(now * (100 << 20)), 1000 << 20, 4096 if now > 2 else 0)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "dump   0%, 0 B of 1000 MiB",
        "dump  10%, 100 MiB of 1000 MiB, 100 MiB/s, 9 s to go",
        "dump  21%, 210 MiB of 1000 MiB, 100 MiB/s, 8 s to go, 4 KiB lost",
    ]


def test_lines_of_an_empty_machine() -> None:
    stream = io.StringIO()
    Lines("dump", stream).update(0, 0, 0)
    assert stream.getvalue() == "dump   0%, 0 B of 0 B\n"


def test_bar_shows_what_is_done_and_lost() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with Bar("dump", console) as shown:
        shown.update(128 << 20, 512 << 20, 8192)
    assert "128.0/512.0 MiB" in stream.getvalue()
    assert "8 KiB lost" in stream.getvalue()
