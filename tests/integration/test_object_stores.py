# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump dump store:s3://...`: from a host into an S3 server and back; and what happens when the
server fails: one sentence, nothing published, and the next dump works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest

from livedumpfs.stores import open_store
from livedumpfs.stores.lease import FOLDER
from livedumpfs.stores.remote_objects import RemoteObjects
from livedumpfs.stores.store import open_objects
from tests.fixtures import forks
from tests.fixtures.object_servers import ALL, FAULTY_S, IN_TIME, KEY, S3, SECRET, long

TOP = Path(__file__).resolve().parents[2]
LIVEDUMP = str(TOP / "scripts" / "livedump")
DEADLINE = 300.0
Host = Any
"""RunningHost of fixtures/hosts.py."""


@pytest.fixture
def host(run_host: Callable[..., Host]) -> Host:
    return run_host()


class Shell:
    """livedump commands, with the credentials in their environment; none of them may show those."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def begin(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return forks.start(
            [LIVEDUMP, *words],
            env={
                **os.environ,
                **self.host.environment,
                "LIVEDUMP_DEVICE": self.host.device,
                "LIVEDUMP_PYTHON": sys.executable,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Exit status and all that it has printed."""
        out, err = process.communicate(timeout=DEADLINE)
        said = out + err
        assert KEY not in said and SECRET not in said and "Traceback" not in said, said
        return process.returncode, said

    def run(self, *words: str, code: int = 0, **environment: str) -> str:
        found, said = self.end(self.begin(*words, **environment))
        assert found == code, said
        return said


@pytest.fixture
def shell(host: Host) -> Shell:
    return Shell(host)


def names(s3: S3) -> list[str]:
    """Of the dumps, past the proxy's faults."""
    s3.works()
    with open_store(f"store:{s3.place()}") as store:
        return store.names()


def test_a_dump_goes_to_an_object_store_and_is_read_there(
    shell: Shell, s3: S3, tmp_path: Path
) -> None:
    url = f"store:{s3.place('deep/vm1')}"
    before = len(s3.requests())
    said = shell.run("dump", url)
    assert f"made the store {s3.place('deep/vm1')}" in said and "consistent" in said
    requests = len(s3.requests()) - before
    assert requests < 40, s3.requests()
    said = shell.run("dump", url)
    said = shell.run("list", url)
    assert said.count("consistent") == 2 and "2 dumps" in said
    assert "consistent" in shell.run("verify", f"{url}#latest")
    first, second = names_of(said)
    if ALL:
        assert shell.run("verify", url)
        shell.run("compare", f"{url}#{first}", f"{url}#{first}")
        shell.run("compare", f"{url}#{first}", f"{url}#{second}", code=1)
    shell.run("convert", f"{url}#{first}", str(tmp_path / "vmcore"))
    shell.run("compare", f"{url}#{first}", str(tmp_path / "vmcore"))
    assert shell.run("forget", url, first)
    assert "removed" in shell.run("gc", url)
    assert "consistent" in shell.run("verify", f"{url}#latest")
    assert not any(line.startswith(FOLDER) for line in s3_objects(s3, "deep/vm1"))


def names_of(said: str) -> list[str]:
    return [line.split()[0] for line in said.splitlines() if line.startswith("20")]


def s3_objects(s3: S3, prefix: str) -> list[str]:
    objects = open_objects(s3.place(prefix))
    assert isinstance(objects, RemoteObjects)
    return [one.name for one in [*objects.names(""), *objects.locks()]]


@long
def test_casyncs_layout_and_encryption_there(shell: Shell, s3: S3, tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    file = tmp_path / "identity"
    file.write_text(f"{identity}\n")
    sealed = f"store:{s3.place('sealed')}"
    said = shell.run("dump", sealed, "--recipient", str(identity.to_public()), "--chunk-size", "1M")
    assert str(identity) not in said
    said = shell.run("list", sealed, code=2)
    assert "it is encrypted, and no identity is named" in said and said.count("\n") == 1
    assert "consistent" in shell.run("verify", f"{sealed}#latest", "--identity", str(file))
    said = shell.run("dump", sealed, LIVEDUMP_IDENTITY=str(file))
    assert "consistent" in said and str(identity) not in said
    assert "2 dumps" in shell.run("list", sealed, "--identity", str(file))
    said = shell.run("dump", sealed, "--layout", "castr", "--identity", str(file), code=2)
    assert "has the layout packs" in said
    castr = f"store:{s3.place('castr')}"
    shell.run("dump", castr, "--layout", "castr", "--chunk-size", "1M")
    assert any(name.endswith(".cacnk") for name in s3_objects(s3, "castr"))
    assert "consistent" in shell.run("verify", f"{castr}#latest")


FAULTS = {
    "500": ({"how": "status", "status": 500, "match": "PUT .*pack"}, "error 500"),
    "cut": ({"how": "cut", "match": "PUT .*pack"}, "the connection was cut"),
    "slow": ({"how": "slow", "seconds": 30, "match": "PUT .*pack"}, "does not answer in time"),
    "index": ({"how": "status", "status": 503, "match": r"PUT .*\.caibx"}, "error 503"),
    "record": ({"how": "cut", "match": r"PUT .*Z-.*\.json"}, "the connection was cut"),
    "refused": ({"how": "status", "status": 403, "match": "PUT .*pack"}, "does not allow it"),
}


@pytest.mark.parametrize("fault", FAULTS if ALL else ["index"])
def test_a_server_that_fails_in_the_middle(fault: str, shell: Shell, s3: S3) -> None:
    url = f"store:{s3.place()}"
    shell.run("dump", url)
    old = names(s3)
    plan, cause = FAULTS[fault]
    s3.fails(**plan)  # type: ignore[arg-type]
    code, said = shell.end(shell.begin("dump", url, LIVEDUMP_REMOTE_DEADLINE=FAULTY_S))
    assert code != 0 and (said.count(cause) == 1 or IN_TIME in said), said
    assert names(s3) == old
    shell.host.runs_on()
    assert "consistent" in shell.run("dump", url)
    assert len(names(s3)) == 2
    assert "consistent" in shell.run("verify", f"{url}#latest")


@long
@pytest.mark.parametrize("how", ["status", "cut", "half"])
def test_a_server_that_fails_now_and_then(how: str, shell: Shell, s3: S3) -> None:
    url = f"store:{s3.place()}"
    s3.fails(how, status=500, after=2, times=2)
    assert "consistent" in shell.run("dump", url)
    s3.works()
    assert "consistent" in shell.run("verify", f"{url}#latest")


@long
def test_a_bucket_that_goes_in_the_middle(shell: Shell, s3: S3) -> None:
    url = f"store:{s3.place()}"
    s3.fails("slow", seconds=2, match="PUT .*pack")
    process = shell.begin("dump", url)
    until(lambda: any("PUT" in line and ".pack" in line for line in s3.requests()))
    s3.remove_bucket()
    code, said = shell.end(process)
    assert code != 0 and said.count("there is no such bucket") == 1, said
    s3.works()
    s3.ask("PUT", s3.bucket)
    assert "consistent" in shell.run("dump", url)


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, f"still not so after {DEADLINE:g} s"
        time.sleep(0.02)


def test_wrong_credentials_are_told_before_anything_is_armed(shell: Shell, s3: S3) -> None:
    s3.forged(strict=True)
    said = shell.run("dump", f"store:{s3.place()}", code=1)
    assert "(InvalidAccessKeyId)" in said and said.count("\n") == 1
    s3.forged(strict=False)
    assert shell.run("dump", f"store:{s3.place()}")


def test_secrets_in_an_address_are_refused_and_not_shown(shell: Shell) -> None:
    for word in ("dump", "list", "verify") if ALL else ("dump",):
        said = shell.run(word, f"store:s3://{KEY}:{SECRET}@bucket/vm1", code=2)
        assert "credentials do not go there" in said and said.count("\n") == 1


@pytest.mark.parametrize("at", [".pack", ".index", ".json", ".caibx"] if ALL else [".caibx"])
def test_a_dump_that_is_killed_leaves_a_store_that_works(at: str, shell: Shell, s3: S3) -> None:
    url = f"store:{s3.place()}"
    shell.run("dump", url)
    s3.fails("slow", seconds=1, match=rf"PUT .*{at}$")
    seen = len(s3.requests())
    process = shell.begin("dump", url)
    until(lambda: any(at + " " in line for line in s3.requests()[seen:] if "PUT" in line))
    process.send_signal(signal.SIGKILL)
    shell.end(process)
    s3.works()
    shell.host.runs_on()
    said = shell.run("gc", url)
    assert "removed" in said
    assert "consistent" in shell.run("dump", url)
    assert shell.run("verify", url)


@long
def test_gc_waits_for_no_dump_and_says_which(shell: Shell, s3: S3) -> None:
    url = f"store:{s3.place()}"
    s3.fails("slow", seconds=3, match="PUT .*pack")
    process = shell.begin("dump", url)
    until(lambda: any("PUT" in line and ".pack" in line for line in s3.requests()))
    said = shell.run("gc", url, code=1)
    assert f"is in use by a dump or another command (process {process.pid} on " in said
    assert shell.end(process)[0] == 0
    shell.run("gc", url)
    assert shell.run("verify", url)
