# SPDX-License-Identifier: GPL-2.0-or-later
"""`livedump dump STORE` of a running host: the image is that of the instant, for casync and gdb
too; what goes wrong leaves the store as it was, and the machine at full speed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.abi import Format, State
from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump, verify_store
from livedumpfs.stores import collect, create_store, open_store
from livedumpfs.stores.reception import Reception
from tests.fixtures import forks
from tests.fixtures.object_servers import ALL, long
from tests.fixtures.store_streams import chunk_count, image_of, nothing_published
from tests.stores.instants import is_of_the_instant

LIVEDUMP = str(Path(__file__).resolve().parents[2] / "scripts" / "livedump")
DEADLINE = 300.0
Host = Any
"""RunningHost of fixtures/hosts.py."""
Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def host(run_host: Callable[..., Host]) -> Host:
    return run_host()


@pytest.fixture
def quiet(run_host: Callable[..., Host]) -> Host:
    """Its guest leaves the most to the sweep, so that a dump can take its time."""
    return run_host(rate=20)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a livedump command; what is left of it is killed at the end."""
    begun: list[subprocess.Popen[str]] = []

    def run(host: Host, *words: str | Path) -> subprocess.Popen[str]:
        process = forks.start(
            [LIVEDUMP, *map(str, words), "--device", host.device],
            env={**host.environment, "LIVEDUMP_PYTHON": sys.executable},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        begun.append(process)
        return process

    yield run
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=DEADLINE)


def ended(process: subprocess.Popen[str], code: int) -> str:
    """What it said, on both streams."""
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == code, out + err
    assert "Traceback" not in err and "/proc/" not in out + err, err
    return out + err


def is_idle(host: Host) -> None:
    """No dump, and the machine runs."""
    end = time.monotonic() + DEADLINE
    with Client(host.device) as client:
        while (state := client.status().state) not in (State.UNDEFINED, State.UNINIT):
            assert time.monotonic() < end, state
            time.sleep(0.02)
    host.runs_on()


def under_way(host: Host, place: Path) -> None:
    """Wait until a dump has put some chunks."""
    end = time.monotonic() + DEADLINE
    with Client(host.device) as client:
        while client.status().state is not State.SWEEP or not (place / "default.castr").exists():
            assert time.monotonic() < end, client.status()
            time.sleep(0.02)


SLOW = ("--sweep-rate", "2M")


def test_two_dumps(host: Host, begin: Begin, place: Path, tmp_path: Path) -> None:
    """The first makes the store. casync makes files of both; gdb and verify read these."""
    said = ended(begin(host, "dump", f"store:{place}"), 0)
    assert f"made the store {place}" in said and re.search(r"^verdict +consistent$", said, re.M)
    named = re.search(r"^dump +(\d{8}T\d{6}Z-[0-9a-f]{8})$", said, re.M)
    assert named and re.search(r"^store +\d+ new chunks of \d+, \S+ \S+ added$", said, re.M)
    is_of_the_instant(host, f"{place}#{named[1]}")
    said = ended(begin(host, "dump", place), 0)  # by what is there
    assert "made the store" not in said
    with open_store(str(place)) as store:
        first = named[1]
        (second,) = set(store.names()) - {first}  # within one second names have no order
        assert verify_store(store).problems == []
        is_of_the_instant(host, f"{place}#{second}")
        record = store.record(second)
        assert record and record.dump_id.startswith(second[-8:]) and record.machine == "ledger"
        assert record.verdict == "consistent" and record.host == os.uname().nodename
        assert (record.memory_size, record.since) == (host.size, "")
        with open_dump(f"{place}#{second}") as dump:
            assert dump.meta["instant"]["wall_ns"] == record.instant_ns
        images = {name: image_of(store, name) for name in (first, second)}
    if shutil.which("casync"):
        for name, image in images.items():
            made = tmp_path / "made"
            words = ["casync", "extract", f"{place}/{name}.caibx", str(made)]
            subprocess.run(words, check=True, timeout=DEADLINE)
            assert made.read_bytes() == image
            assert "consistent" in ended(verify(made), 0)
            gdb_reads(made)
            made.unlink()


def verify(path: Path) -> subprocess.Popen[str]:
    return forks.start(
        [LIVEDUMP, "verify", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "LIVEDUMP_PYTHON": sys.executable},
    )  # fmt: skip


def gdb_reads(core: Path) -> None:
    if not shutil.which("gdb"):
        return
    words = ["gdb", "-batch", "-nx", "-ex", "info registers rip", "-c", str(core)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert re.search(r"^rip +0x[0-9a-f]+", done.stdout, re.M), done.stdout + done.stderr


@pytest.mark.parametrize("size", ["256K", pytest.param("1M", marks=long)])
def test_chunks_of_another_size(host: Host, begin: Begin, place: Path, size: str) -> None:
    """The granule is that size, if none is given."""
    ended(begin(host, "dump", f"store:{place}", "--chunk-size", size), 0)
    is_of_the_instant(host, f"{place}#latest")
    with open_dump(f"{place}#latest") as dump, open_store(str(place)) as store:
        assert (
            dump.granule_size
            == store.about.chunk_size
            == int(size[:-1]) << (10 + 10 * (size[-1] == "M"))
        )
    ended(begin(host, "dump", f"store:{place}", "--granule", "2M"), 0)
    is_of_the_instant(host, f"{place}#latest")
    for words, sentence in (
        (("--chunk-size", "64K"), "has chunks of"),
        (("--digest", "sha512_256"), "names its chunks by sha256"),
    ):
        said = ended(begin(host, "dump", f"store:{place}", *words), 2)
        assert f"the store {place} {sentence}" in said


REFUSED = (
    (("--format", "kdump"), "a store takes dumps of format elf, not kdump"),
    (("--sidecar", "x"), "--sidecar goes with --format raw"),
    (("--compress", "zlib"), "--compress goes with --format kdump"),
    (("--force",), "--force does not go with a store"),
    (("--buffered",), "--buffered does not go with a store"),
    (("--hold",), "--hold does not go with a store"),
    (("--keep", "3"), "--keep does not go with a store"),
    (("--exclude", "all"), "--exclude does not go with a store"),
    (("--granule", "4K"), "granules of 4 KiB do not go into a store with chunks of 64 KiB"),
    (("--chunk-size", "3M"), "chunks of 3 MiB are not possible"),
)


def test_what_makes_no_sense_is_refused_by_name(host: Host, begin: Begin, place: Path) -> None:
    for words, sentence in REFUSED if ALL else REFUSED[::2]:
        said = ended(begin(host, "dump", f"store:{place}", *words), 2)
        assert sentence in said and said.count("livedump: error: ") == 1
        assert not place.exists()
    assert "--chunk-size goes with a store" in ended(
        begin(host, "dump", place, "--chunk-size", "1M"), 2
    )
    is_idle(host)


@long
def test_a_granule_that_the_host_has_set(host: Host, begin: Begin, place: Path) -> None:
    """It is known before the machine is touched."""
    host.write("control/granule", "4K")
    said = ended(begin(host, "dump", f"store:{place}"), 2)
    assert "granules of 4 KiB do not go into a store" in said
    with open_store(str(place)) as store:
        assert nothing_published(store)
    is_idle(host)


def test_places_that_are_no_store(host: Host, begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    (tmp_path / "file").touch()
    for name, code, sentence in (
        ("full", 1, "it is not empty"),
        ("file", 1, "Not a directory"),
        ("no/where", 1, "No such file or directory"),
    ):
        said = ended(begin(host, "dump", f"store:{tmp_path / name}"), code)
        assert sentence in said and said.count("livedump: error: ") == 1
    is_idle(host)


@long
def test_a_store_that_gc_has(host: Host, begin: Begin, place: Path) -> None:
    """The dump waits a while, then it is refused; the machine was not touched."""
    with create_store(str(place)) as store, store.lock(alone=True):
        said = ended(begin(host, "dump", place), 1)
    assert f"the store {place} is in use by gc or forget" in said
    is_idle(host)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=long), signal.SIGKILL])
def test_what_is_broken_off_is_not_published(
    number: signal.Signals, quiet: Host, begin: Begin, place: Path
) -> None:
    process = begin(quiet, "dump", f"store:{place}", *SLOW)
    under_way(quiet, place)
    process.send_signal(number)
    said = ended(process, 130 if number == signal.SIGINT else -signal.SIGKILL)
    if number == signal.SIGINT:
        assert f"the dump on store:{place} is incomplete" in said
        assert f"no dump was added to store:{place}: the dump was broken off" in said
    is_idle(quiet)
    with open_store(str(place)) as store:
        assert store.names() == [] and verify_store(store).problems == []
        ended(begin(quiet, "dump", place), 0)
        collect(store)
        assert {one for one, _ in store.chunks.every()} == store.index(store.names()[0]).unique()
    is_of_the_instant(quiet, f"{place}#latest")


def test_a_host_that_is_killed(quiet: Host, begin: Begin, place: Path) -> None:
    process = begin(quiet, "dump", f"store:{place}", *SLOW)
    under_way(quiet, place)
    quiet.kill()
    process.communicate(timeout=DEADLINE)
    assert process.returncode not in (0, -signal.SIGKILL)
    with open_store(str(place)) as store:
        assert nothing_published(store) and chunk_count(store)


@long
def test_released_by_another_command(quiet: Host, begin: Begin, place: Path) -> None:
    process = begin(quiet, "dump", f"store:{place}", *SLOW)
    under_way(quiet, place)
    assert begin(quiet, "release").wait(DEADLINE) == 0
    said = ended(process, 3)
    assert said.count("livedump: error: ") == 1
    with open_store(str(place)) as store:
        assert nothing_published(store)
    is_idle(quiet)


def test_a_store_that_vanishes(quiet: Host, begin: Begin, place: Path) -> None:
    """No other one is made in its place."""
    process = begin(quiet, "dump", f"store:{place}", *SLOW)
    under_way(quiet, place)
    while place.exists():
        shutil.rmtree(place, ignore_errors=True)
    said = ended(process, 3)
    assert f": no dump was added to store:{place}: cannot write {place}/" in said
    assert "No such file or directory" in said and said.count("livedump: error: ") == 1
    assert not place.exists()
    is_idle(quiet)


@long
def test_a_store_that_gets_another_name(quiet: Host, begin: Begin, place: Path) -> None:
    """Its dump is in it."""
    process = begin(quiet, "dump", f"store:{place}", *SLOW)
    under_way(quiet, place)
    elsewhere = place.rename(place.with_name("elsewhere"))
    ended(process, 0)
    is_of_the_instant(quiet, f"{elsewhere}#latest")
    assert not place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own needs root")
def test_a_disk_that_gets_full(host: Host, begin: Begin, place: Path) -> None:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", place], check=True)
    try:
        said = ended(begin(host, "dump", f"store:{place}"), 3)
        assert "No space left on device" in said and said.count("livedump: error: ") == 1
        with open_store(str(place)) as store:
            assert nothing_published(store)
        is_idle(host)
    finally:
        subprocess.run(["umount", place], check=True)


@long
def test_two_hosts_at_once(
    host: Host, run_host: Callable[..., Host], begin: Begin, place: Path
) -> None:
    """Into one store, which both may make."""
    other = run_host()
    with create_store(str(place)):
        pass
    first = begin(host, "dump", place, "--sweep-rate", "8M")
    second = begin(other, "dump", place, "--sweep-rate", "8M")
    names = [
        re.search(r"^dump +(\S+)$", ended(one, 0), re.M)[1]
        for one in (first, second)  # type: ignore[index]
    ]
    for one, name in zip((host, other), names, strict=True):
        is_of_the_instant(one, f"{place}#{name}")


@long
def test_a_torn_dump_is_published_as_torn(quiet: Host, begin: Begin, place: Path) -> None:
    """One slot, and the pages beyond it are lost."""
    words = ("--policy", "fail", "--pool", "64K", "--sweep-rate", "1M")
    said = ended(begin(quiet, "dump", f"store:{place}", *words), 3)
    assert re.search(r"^dump +\d{8}T", said, re.M)
    with open_store(str(place)) as store:
        (name,) = store.names()
        record = store.record(name)
        assert record and record.verdict == "torn"
    with open_dump(f"{place}#{name}") as dump:
        assert dump.verdict == "torn" and dump.missing()


def test_a_program_receives_by_itself(host: Host, place: Path) -> None:
    """As a worker of a fleet does."""
    with (
        create_store(str(place)) as store,
        Client(host.device) as client,
        Reception(store) as reception,
    ):
        client.init(reception.path, InitOptions(format=Format.ELF, release_on_close=True))
        reception.handed_over()
        with pytest.raises(TimeoutError):
            reception.finish(0.01)
        client.start()
        client.sweep()
        for status in client.progress():
            assert not status.broken
        client.release()
        published = reception.finish(DEADLINE)
        assert store.names() == [published.name] and published.record.verdict == "consistent"
        with store.lock(alone=True):
            pass  # it has let the lock go
    is_of_the_instant(host, f"{place}#{published.name}")
