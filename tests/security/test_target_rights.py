# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets and sidecars: nothing is written, read or removed but with the caller's rights."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.dumpfile import open_dump
from livedumpfs.formats import Plan
from tests.fixtures.program_files import program_command

Host = Any
"""RunningHost of conftest.py."""
HostMaker = Callable[..., Host]
DumpWriter = Callable[..., Plan]
RunAs = Callable[..., str]
DEADLINE = 300.0
USER, GROUP = 3_000_111, 54321


def init_as(run_as: RunAs, host: Host, target: Path | str, *words: str, **options: Any) -> str:
    groups = options.pop("groups", (GROUP,))
    arguments = (host.device, target, *words)
    return run_as(USER, "init_targets.py", *arguments, groups=groups, **options).strip()


@pytest.fixture
def shared(open_folder: Path, run_host: HostMaker) -> Host:
    """A host that USER may control as a member of GROUP."""
    return run_host(group=GROUP, folder=open_folder)


def test_a_sidecar_is_not_looked_at_or_removed_with_the_hosts_rights(
    shared: Host, open_folder: Path, run_as: RunAs, write_dump: DumpWriter
) -> None:
    """Root's dump that the caller may overwrite, and its sidecar that the caller may neither
    read nor remove."""
    target, sidecar = open_folder / "out", open_folder / "out.ldfs"
    write_dump(target, bytes(range(256)) * 64, format="raw")
    target.chmod(0o666)
    content = sidecar.read_bytes()
    assert init_as(run_as, shared, target).startswith("EEXIST ")
    assert init_as(run_as, shared, target, "force") == "done"
    assert sidecar.read_bytes() == content
    with open_dump(str(target)) as dump:
        assert dump.format == "elf"


def test_a_sidecar_of_ones_own_stays_until_it_would_be_wrong(
    shared: Host, open_folder: Path, run_as: RunAs, write_dump: DumpWriter
) -> None:
    """Then it goes, with the caller's rights: it would describe what lies there no more."""
    own = open_folder / "own"
    own.mkdir()
    write_dump(own / "out", bytes(range(256)) * 64, format="raw")
    for path in (own, own / "out", own / "out.ldfs"):
        os.chown(path, USER, USER)
    assert init_as(run_as, shared, own / "out") == "done"
    with open_dump(str(own / "out")) as dump:
        assert (dump.format, dump.verdict) == ("raw", "consistent")
    assert init_as(run_as, shared, own / "out", "sweep") == "done"
    assert [one.name for one in own.iterdir()] == ["out"]
    assert (own / "out").stat().st_uid == USER
    with open_dump(str(own / "out")) as dump:
        assert (dump.format, dump.verdict) == ("elf", "consistent")


def test_a_link_beside_the_target_leads_to_nobodys_sidecar(
    shared: Host, open_folder: Path, run_as: RunAs, write_dump: DumpWriter
) -> None:
    own, private = open_folder / "own", open_folder / "private"
    for place in (own, private):
        place.mkdir(mode=0o700)
    os.chown(own, USER, USER)
    write_dump(private / "roots", bytes(range(256)) * 64, format="raw")
    content = (private / "roots.ldfs").read_bytes()
    (own / "out.ldfs").symlink_to(private / "roots.ldfs")
    assert init_as(run_as, shared, own / "out") == "done"
    assert (own / "out.ldfs").is_symlink()
    assert (private / "roots.ldfs").read_bytes() == content


def test_descriptors_of_others_are_not_reached_by_proc(
    shared: Host, open_folder: Path, run_as: RunAs
) -> None:
    """/proc/PID/fd of root's process, of the host and of the helper itself."""
    secret = open_folder / "secret"
    secret.touch(mode=0o600)
    with open(secret, "r+b") as file:
        places = [
            f"/proc/{os.getpid()}/fd/{file.fileno()}", f"/proc/{shared.process.pid}/mem",
            f"/proc/{os.getpid()}/cwd/x", "/proc/self/mem", "/proc/self/exe",
            *(f"/proc/self/fd/{number}" for number in range(10)),
        ]  # fmt: skip
        answers = init_as(run_as, shared, "\n".join(places), "force").split("\n")
        assert len(answers) == len(places) and "done" not in answers
    assert secret.stat().st_size == 0
    shared.runs_on()


def test_root_of_a_user_namespace_is_who_he_is_outside(
    shared: Host, open_folder: Path, run_as: RunAs
) -> None:
    private, own = open_folder / "private", open_folder / "own"
    private.mkdir(mode=0o700)
    own.mkdir()
    os.chown(own, USER, USER)
    for place, answer in ((private, "EACCES "), (own, "done")):
        arguments = (shared.device, place / "out")
        found = run_as(USER, "root_of_a_namespace.py", *arguments, groups=(GROUP,))
        if found.startswith("SKIP"):
            pytest.skip(f"no user namespaces here: {found}")
        assert found.startswith(answer)
    assert (own / "out.incomplete").stat().st_uid == USER


def test_the_file_system_uid_is_what_counts(shared: Host, open_folder: Path) -> None:
    """Of a file server of root's, which acts as its client for one call."""
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    done = subprocess.run(
        [*program_command(__file__, "file_system_ids.py", str(USER), str(GROUP)), shared.device,
         private / "out"],
        env=shared.environment, capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("EACCES cannot open "), done.stdout
    assert not list(private.iterdir())
