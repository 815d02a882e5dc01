# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's end of a helper: a process (opener.py) that opens and names files with the rights of
the caller that asks for the dump.

All its answers are checked, because the caller may control that process (ptrace).
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta

from livedumpfs.rights.folder import Found, Refused, Standing, refused
from livedumpfs.rights.opener import GIVE, MESSAGE_MAX

TIMEOUT = 10.0
"""Most seconds for one step of the helper; a disk takes less to spin up."""
_PROGRAM = str(Path(__file__).resolve().with_name("opener.py"))
_Number = Annotated[int, Meta(ge=0, lt=1 << 32)]
_Result = TypeVar("_Result")


class _Answer(msgspec.Struct):
    """Of any step. `errno` is 0 where it was taken."""

    errno: Annotated[int, Meta(ge=0, lt=4096)]
    text: str
    mode: _Number
    reason: str


class _Became(_Answer):
    same_root: bool


class _Found(_Answer):
    path: str
    folder: _Number | None


class _Given(_Answer, Generic[_Result]):
    result: _Result


_ANSWERS: Final[dict[str, Any]] = {
    "become": _Became,
    "find": _Found,
    "look": _Given[Standing | None],
    "names": _Given[list[str]],
    "keeps": _Given[bool],
    "user": _Given[_Number],
}
"""Of each step that was taken; all others give nothing."""


class Helper:
    """A helper process with the rights of task `tid`, which must still have file system uid `uid`
    and gid `gid`. It ends with the last of its folders, or with end().

    Every call raises Refused (OSError): what find() raises; EPERM: this process may not take over
    the caller's rights; ESRCH: the caller has ended; ETIMEDOUT after `timeout` seconds; EIO: the
    helper has ended.
    """

    def __init__(self, tid: int, uid: int, gid: int, timeout: float | None = None) -> None:
        self.timeout = TIMEOUT if timeout is None else timeout
        self._lock = threading.Lock()
        self._users = 1
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [
                        sys.executable, "-I", "-S", _PROGRAM,
                        str(theirs.fileno()),
                    ],
                    pass_fds=(theirs.fileno(),), cwd="/", env={}, stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
        except BaseException:
            self._end.close()
            raise
        try:
            answer, _ = self.ask("become", tid=tid, uid=uid, gid=gid)
        except BaseException:
            self.end()
            raise
        self.same_root: bool = answer.same_root

    def find(self, path: str) -> Found:
        """See folder.find."""
        answer, fd = self.ask("find", path=path)
        folder = None if answer.folder is None else RemoteFolder(self, answer.folder)
        return Found(answer.path, fd, folder)

    def ask(self, step: str, **details: Any) -> tuple[Any, int]:
        """Send one step. Returns the answer, and the descriptor that came with it, else -1."""
        request = json.dumps({"step": step, **details}).encode()
        with self._lock:
            data, fds = self._exchange(request, time.monotonic() + self.timeout)
        try:
            answer = _checked(data, step, len(fds))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return answer, fds[0] if fds else -1

    def _exchange(self, request: bytes, deadline: float) -> tuple[bytes, list[int]]:
        data: bytes = b""
        fds: list[int] = []
        try:
            self._end.settimeout(max(deadline - time.monotonic(), 0.001))
            self._end.send(request)
            data, fds, _, _ = socket.recv_fds(self._end, MESSAGE_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            self._end.close()  # else the late answer would be taken for that of the next question
            raise Refused(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise
        if not data:
            raise Refused(errno.EIO, "the helper process with the caller's rights has ended")
        return data, fds

    def hold(self) -> None:
        """Count one more user of the helper."""
        with self._lock:
            self._users += 1

    def let_go(self) -> None:
        """Count one less; with the last one the helper ends."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self.end()

    def end(self) -> None:
        """End the process and reap it. One that hangs on a dead device cannot be killed: it stays
        until the device answers."""
        self._end.close()
        try:
            self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            # If that fails too, Popen's own list of abandoned children reaps it later.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)


def _checked(data: bytes, step: str, fds: int) -> Any:
    """The answer, after a check of its form: the caller may control the helper. Refused: the
    helper's own error, or EIO."""
    try:
        # Paths may have halves of surrogate pairs for bytes that are no text: msgspec's own parser
        # refuses them.
        content = json.loads(data)
        answer = msgspec.convert(content, _Answer)
        if not answer.errno:
            taken = msgspec.convert(content, _ANSWERS.get(step, _Given[None]))
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise _no_answer() from error
    if answer.errno:
        refusal = refused(answer.errno, answer.reason, answer.mode)
        refusal.strerror = answer.text
        raise refusal
    least = 1 if step in GIVE else 0
    if not least <= fds <= (1 if step == "find" else least):
        raise _no_answer()
    return taken


def _no_answer() -> Refused:
    return Refused(errno.EIO, "the helper process with the caller's rights gave no answer")


class RemoteFolder:
    """A folder that a Helper holds open; see folder.FolderLike."""

    def __init__(self, helper: Helper, number: int) -> None:
        self._helper, self._number, self._open = helper, number, True
        helper.hold()

    def _ask(self, step: str, **details: Any) -> tuple[Any, int]:
        if not self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._helper.ask(step, folder=self._number, **details)

    def make(self, name: str, like: Standing | None) -> int:
        """As FolderLike.make."""
        return self._ask("make", name=name, like=like)[1]

    def open(self, name: str, *, write: bool) -> int:
        """As FolderLike.open."""
        return self._ask("open", name=name, write=write)[1]

    def look(self, name: str) -> Standing | None:
        """As FolderLike.look."""
        found: Standing | None = self._ask("look", name=name)[0].result
        return found

    def replace(self, old: str, new: str) -> None:
        """As FolderLike.replace."""
        self._ask("replace", old=old, new=new)

    def remove(self, name: str) -> None:
        """As FolderLike.remove."""
        self._ask("remove", name=name)

    def names(self, first: str, last: str) -> list[str]:
        """As FolderLike.names."""
        found: list[str] = self._ask("names", first=first, last=last)[0].result
        return found

    def keeps(self, name: str) -> bool:
        """As FolderLike.keeps."""
        return bool(self._ask("keeps", name=name)[0].result)

    def user(self) -> int:
        """As FolderLike.user."""
        return int(self._ask("user")[0].result)

    def sync(self) -> None:
        """As FolderLike.sync."""
        self._ask("sync")

    def close(self) -> None:
        """Harmless when done twice."""
        if self._open:
            self._open = False
            self._helper.let_go()
