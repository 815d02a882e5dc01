# SPDX-License-Identifier: GPL-2.0-or-later
"""Options from files: which file counts, which commands they are for, what goes before them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from livedumpfs.cli import options_file
from livedumpfs.cli.given import given
from livedumpfs.cli.main import build_parser, main
from livedumpfs.cli.options_file import read_config
from livedumpfs.cli.outcome import Exit

VARIABLES = ("LIVEDUMP_DEVICE", "LIVEDUMP_IDENTITY", "LIVEDUMP_ENCRYPTED", "NO_COLOR")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's."""
    for name in (*VARIABLES, options_file.VARIABLE):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(options_file, "SYSTEM_FILE", str(tmp_path / "system.toml"))
    (tmp_path / "livedump").mkdir()
    return tmp_path / "livedump" / "config.toml"


def parsed(*words: str) -> argparse.Namespace:
    parser = build_parser()
    read_config(parser)
    return parser.parse_args(words)


def test_without_a_file_all_is_as_ever() -> None:
    assert vars(parsed("dump", "x")) == vars(build_parser().parse_args(["dump", "x"]))


def test_a_table_is_for_its_command_and_the_top_for_all(file: Path) -> None:
    file.write_text('format = "kdump"\npool = "32M"\n[host]\nram = "64M"\npool = "16M"\n')
    host, dump = parsed("host"), parsed("dump", "x")
    assert (host.ram, host.pool, host.format) == (64 << 20, 16 << 20, "kdump")
    assert (dump.pool, dump.format) == (32 << 20, "kdump")
    assert given(dump) == {"pool": 32 << 20, "format": "kdump"}


def test_what_is_typed_goes_first_then_the_users_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "system.toml").write_text('[host]\nvcpus = 3\nram = "8M"\nidle = true\n')
    file.write_text("[host]\nvcpus = 2\n")
    assert (parsed("host").vcpus, parsed("host").ram) == (2, 8 << 20)
    assert parsed("host").idle is True
    assert parsed("host", "--vcpus", "4").vcpus == 4


def test_one_file_may_be_named_or_none(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("[host]\nvcpus = 2\n")
    (tmp_path / "mine").write_text("[host]\nvcpus = 3\n")
    monkeypatch.setenv(options_file.VARIABLE, str(tmp_path / "mine"))
    assert parsed("host").vcpus == 3
    monkeypatch.setenv(options_file.VARIABLE, "")
    assert parsed("host").vcpus == 1


def test_a_variable_goes_before_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('no-color = true\n[status]\ndevice = "vm1"\n')
    monkeypatch.setenv("LIVEDUMP_DEVICE", "vm2")
    parsed("status")
    assert (os.environ["LIVEDUMP_DEVICE"], os.environ["NO_COLOR"]) == ("vm2", "1")
    monkeypatch.delenv("LIVEDUMP_DEVICE")
    parsed("finish")
    assert "LIVEDUMP_DEVICE" not in os.environ
    assert parsed("status").device is None  # find_device reads the variable
    assert os.environ["LIVEDUMP_DEVICE"] == "vm1"


def test_an_identity_of_a_file_is_for_the_stores_that_need_it(file: Path) -> None:
    """Typed, it refuses all others."""
    file.write_text('identity = "/key"\n')
    parsed("list", "/store")
    assert os.environ["LIVEDUMP_IDENTITY"] == "/key"
    assert "LIVEDUMP_ENCRYPTED" not in os.environ
    assert main(["list", "/no/where", "--identity", "/other"]) == Exit.FAILED
    assert (os.environ["LIVEDUMP_IDENTITY"], os.environ["LIVEDUMP_ENCRYPTED"]) == ("/other", "1")


def test_what_is_typed_drops_what_it_excludes(file: Path) -> None:
    """The format that an option goes with; the other way to name a machine."""
    file.write_text('format = "kdump"\nlevel = 3\nthreads = 2\n[attach]\nlibvirt = "vm"\n')
    assert given(parsed("dump", "x", "--format", "elf")) == {"format": "elf"}
    assert given(parsed("dump", "x")) == {"format": "kdump", "level": 3, "threads": 2}
    assert parsed("attach").libvirt == "vm"
    found = parsed("attach", "/qmp")
    assert (found.socket, found.libvirt) == ("/qmp", None)


def test_lists_and_what_is_required(file: Path) -> None:
    file.write_text('[fleet]\ninsecure = true\n[fleet.dump]\nto = "/x"\nmember = ["a", "b"]\n')
    found = parsed("fleet", "dump")
    assert (found.to, found.member, found.insecure) == ("/x", ["a", "b"], True)
    assert parsed("fleet", "members").insecure is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ram = ", "config.toml: "),
        ("[host]\nramm = 1\n", "there is no option ramm of [host] (did you mean ram?)"),
        ("[hots]\nram = 1\n", "there is no table [hots] (did you mean host?)"),
        ("[fleet.dmup]\n", "there is no table [fleet.dmup] (did you mean dump?)"),
        ("quick = true", "there is no option quick (did you mean quiet?)"),
        ('pool = "much"', "pool: "),
        ("[host]\nvcpus = 9", "vcpus of [host]: "),
        ('[dump]\npolicy = "hope"', "policy of [dump]: "),
        ("[host]\nidle = 1", "idle of [host] must be true or false"),
        ("[host]\nram = true", "ram of [host] must be text or a number"),
        ('[host]\nram = ["1M"]', "ram of [host] must be text or a number"),
        ("[dump]\nforce = true", "force cannot be in a file (type it)"),
        ("[verify]\nrepair = true", "repair cannot be in a file (type it)"),
    ],
)
def test_what_makes_no_sense(
    file: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text)
    assert main(["status"]) == Exit.USAGE
    err = capsys.readouterr().err
    assert str(file) in err and said in err and err.count("\n") == 1


def test_a_file_that_is_not_there_or_no_file(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(options_file.VARIABLE, "/no/where")
    assert main(["status"]) == Exit.USAGE
    assert "/no/where is not there (LIVEDUMP_CONFIG names it)" in capsys.readouterr().err
    monkeypatch.setenv(options_file.VARIABLE, str(file.parent))
    assert main(["status"]) == Exit.USAGE
    assert "cannot read" in capsys.readouterr().err


def test_a_file_of_another_user_is_not_believed(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("[host]\nvcpus = 2\n")
    file.chmod(0o666)
    assert parsed("host").vcpus == 1
    assert "is not read: other users may write it" in capsys.readouterr().err
    file.chmod(0o600)
    assert parsed("host").vcpus == 2
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
        assert parsed("host").vcpus == 1
