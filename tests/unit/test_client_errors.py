# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client says when its host fails and has no sentence any more."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable

import pytest

from livedumpfs import abi
from livedumpfs import client as module
from livedumpfs.client import Client
from livedumpfs.errors import HostError, LivedumpError, StateError, UsageError

STEPS = ("init", "start", "sweep", "release", "status")
ONE = bytes(range(16))


@pytest.fixture
def client(tmp_path: os.PathLike[str]) -> Client:
    """Of a host that is ending: control/error is gone already."""
    found = Client.__new__(Client)
    found.device = os.path.join(tmp_path, "livedump")
    found.mountpoint, found._fd = os.fspath(tmp_path), -1
    return found


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ECONNRESET, "Connection reset by peer (its machine has ended)"),
        (errno.EIO, "Input/output error (it may be ending)"),
        (errno.ESHUTDOWN, "(it may be ending)"),
    ],
)
def test_an_errno_alone_is_never_the_whole_sentence(
    client: Client, monkeypatch: pytest.MonkeyPatch, step: str, code: int, words: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, "_ioctl", fail)
    with pytest.raises(LivedumpError) as caught:
        getattr(client, step)(*([None] if step == "init" else []))
    assert caught.value.errno == code
    said = f"the host of {client.device} does not say what failed: "
    assert str(caught.value).startswith(said) and words in str(caught.value)


def test_the_order_of_steps_is_told_from_failure(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EINVAL, "whatever")

    monkeypatch.setattr(module, "_ioctl", fail)
    with pytest.raises(StateError):
        client.start()
    monkeypatch.setattr(Client, "error", lambda _: "START is not possible in state INIT")
    with pytest.raises(StateError, match=r"^START is not possible in state INIT$"):
        client.start()


STEPS_BY_ID: dict[str, Callable[[Client], object]] = {
    "init": lambda client: client.init_as(ONE, None),
    "start": lambda client: client.start_as(ONE),
    "hold": lambda client: client.hold(ONE, 1.0),
    "arm": lambda client: client.arm(ONE),
    "go": lambda client: client.go(ONE),
    "sweep": lambda client: client.sweep_as(ONE),
    "release": lambda client: client.release_as(ONE),
    "status": lambda client: client.status_as(ONE),
}


@pytest.mark.parametrize("step", STEPS_BY_ID)
@pytest.mark.parametrize("is_host", [True, False])
def test_a_host_that_is_older(
    client: Client, monkeypatch: pytest.MonkeyPatch, step: str, *, is_host: bool
) -> None:
    """It has STATUS, and no step by id. What has neither is no host."""

    def fail(_: int, command: int, __: object) -> None:
        if command != abi.STATUS or not is_host:
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr(module, "_ioctl", fail)
    with pytest.raises(HostError) as caught:
        STEPS_BY_ID[step](client)
    assert caught.value.errno == errno.ENOTTY
    said = "is older than this program" if is_host else "is not a host's livedump file"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "step",
    [
        lambda client: client.start_as(ONE, -1),
        lambda client: client.start_as(ONE, 2**64 + 1),
        lambda client: client.start_as(ONE, 1, 2**64),
        lambda client: client.hold(ONE, -1.0),
        lambda client: client.hold(ONE, 0.0),
        lambda client: client.hold(ONE, 1e30),
        lambda client: client.hold(ONE, math.inf),
        lambda client: client.hold(ONE, math.nan),
    ],
)
def test_numbers_that_the_struct_cannot_hold(
    client: Client, step: Callable[[Client], object]
) -> None:
    """ctypes would cut them off, and the host see another time."""
    with pytest.raises(UsageError) as caught:
        step(client)
    assert caught.value.errno == errno.ERANGE
