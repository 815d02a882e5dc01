# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client says when its host fails and has no sentence any more."""

from __future__ import annotations

import errno
import os

import pytest

from livedumpfs import client as module
from livedumpfs.client import Client
from livedumpfs.errors import LivedumpError, StateError

STEPS = ("init", "start", "sweep", "release", "status")


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
