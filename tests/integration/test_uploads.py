# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump dump s3://BUCKET/KEY`: a dump as one object; `dump - --recipient`: as an age file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.fixtures.object_servers import ALL, FAULTY_S, IN_TIME, KEY, S3, SECRET, long
from tests.integration.test_object_stores import Shell, until

Host = Any


@pytest.fixture
def shell(run_host: Callable[..., Host]) -> Shell:
    return Shell(run_host())


def fetch(s3: S3, key: str, path: Path) -> Path:
    path.write_bytes(s3.ask("GET", f"{s3.bucket}/{key}"))
    return path


def keys(s3: S3) -> list[str]:
    text = s3.ask("GET", s3.bucket).decode()
    return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]


@pytest.mark.parametrize("format", ["elf", "kdump"] if ALL else ["elf"])
def test_a_dump_as_one_object(
    format: str,
    run_host: Callable[..., Host],
    s3: S3,
    tmp_path: Path,
) -> None:
    shell = Shell(run_host(ram="40MiB"))  # two parts
    url = s3.place("dumps/vm1.vmcore")
    said = shell.run("dump", url, "--format", format)
    assert "consistent" in said and url in said
    assert keys(s3) == ["dumps/vm1.vmcore"]
    file = fetch(s3, "dumps/vm1.vmcore", tmp_path / "vmcore")
    assert "consistent" in shell.run("verify", str(file))
    assert "there is such an object (--force replaces it)" in shell.run("dump", url, code=1)
    if not ALL:
        return
    shell.run("dump", url, "--force", "--format", format)
    other = fetch(s3, "dumps/vm1.vmcore", tmp_path / "other")
    assert "consistent" in shell.run("verify", str(other))
    assert other.read_bytes() != file.read_bytes()


FAULTS = {
    "500": ({"how": "status", "status": 500, "match": "^(PUT|POST)"}, "error 500"),
    "cut": ({"how": "cut", "match": "^(PUT|POST)"}, "the connection was cut"),
    "refused": ({"how": "status", "status": 403, "match": "^(PUT|POST)"}, "does not allow it"),
    "slow": ({"how": "slow", "seconds": 20, "match": "^(PUT|POST)"}, "does not answer in time"),
}


@pytest.mark.parametrize("fault", FAULTS if ALL else ["cut"])
def test_a_server_that_fails_gets_no_object(fault: str, shell: Shell, s3: S3) -> None:
    plan, cause = FAULTS[fault]
    s3.fails(**plan)  # type: ignore[arg-type]
    url = s3.place("x")
    code, said = shell.end(shell.begin("dump", url, LIVEDUMP_REMOTE_DEADLINE=FAULTY_S))
    assert code != 0 and (said.count(cause) == 1 or IN_TIME in said), said
    s3.works()
    assert fault == "slow" or "x" not in keys(s3)
    shell.host.runs_on()
    shell.run("dump", s3.place("x"))


@long
def test_a_dump_that_is_killed_leaves_no_object(run_host: Callable[..., Host], s3: S3) -> None:
    shell = Shell(run_host(ram="96MiB"))
    s3.fails("slow", seconds=1, match="POST")
    process = shell.begin("dump", s3.place("x"))
    until(lambda: any("POST" in line for line in s3.requests()))
    process.send_signal(signal.SIGKILL)
    shell.end(process)
    s3.works()
    assert "store/x" not in keys(s3) and "x" not in keys(s3)
    shell.host.runs_on()
    shell.run("dump", s3.place("x"))
    # Its parts stay for a day: they may be those of a process that is under way.
    assert [key for key in keys(s3) if not key.startswith("x.parts/")] == ["x"]


WRONG = {
    "a dump as one object goes to s3://BUCKET/KEY, not to gs://": ("gs://bucket/x",),
    "names no object in a bucket": ("s3://bucket",),
    "takes dumps of format elf or kdump": ("s3://bucket/x", "--format", "raw"),
    "--hold does not go with an object": ("s3://bucket/x", "--hold"),
    "--buffered does not go with an object": ("s3://bucket/x", "--buffered"),
    "credentials do not go there": (f"s3://{KEY}:{SECRET}@bucket/x",),
    "--recipient goes with a store": ("s3://bucket/x", "--recipient", "age1x"),
}


def test_what_does_not_go(shell: Shell) -> None:
    for said, words in WRONG.items():
        found = shell.run("dump", *words, code=2)
        assert said in found and found.count("\n") == 1, found


@long
def test_wrong_credentials(shell: Shell, s3: S3) -> None:
    s3.forged(strict=True)
    found = shell.run("dump", s3.place("x"), code=1)
    assert "the server does not allow it" in found and found.count("\n") == 1


# ---------------------------------------------------------------- streams


def test_a_stream_is_an_age_file(shell: Shell, tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    file, sealed = tmp_path / "identity", tmp_path / "dump.age"
    file.write_text(f"{identity}\n")
    process = shell.begin(
        "dump", "-", "--format", "kdump", "--recipient", str(identity.to_public())
    )
    assert process.stdout and process.stderr
    sealed.write_bytes(process.stdout.buffer.read())  # type: ignore[attr-defined]
    assert process.wait(300) == 0, process.stderr.read()
    assert str(identity) not in process.stderr.read()
    assert sealed.read_bytes().startswith(b"age-encryption.org/v1\n")
    opened = tmp_path / "opened"
    if shutil.which("age"):  # Debian's
        command = ["age", "-d", "-i", str(file), "-o", str(opened), str(sealed)]
        subprocess.run(command, check=True, timeout=300)
    else:
        pyrage.decrypt_file(str(sealed), str(opened), [identity])
    shell.run("convert", str(opened), str(tmp_path / "vmcore"), "--format", "kdump")
    assert "consistent" in shell.run("verify", str(tmp_path / "vmcore"))
    cut = tmp_path / "cut"
    cut.write_bytes(sealed.read_bytes()[:-1000])
    with pytest.raises((pyrage.DecryptError, OSError)):
        pyrage.decrypt_file(str(cut), os.devnull, [identity])


def test_a_reader_that_goes(shell: Shell) -> None:
    identity = pyrage.x25519.Identity.generate()
    process = shell.begin(
        "dump", "-", "--format", "kdump", "--recipient", str(identity.to_public())
    )
    assert process.stdout and process.stderr
    os.read(process.stdout.fileno(), 100)
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(300) != 0
    assert "cannot write to standard output: Broken pipe" in said and "Traceback" not in said
    shell.host.runs_on()


def test_a_recipient_that_is_none(shell: Shell) -> None:
    found = shell.run("dump", "-", "--format", "kdump", "--recipient", "age1nonsense", code=2)
    assert "age1nonsense is no recipient of age" in found and found.count("\n") == 1
