# SPDX-License-Identifier: GPL-2.0-or-later
"""Receiver: a process of its own that receives a dump of this process's machine into a store.

A store may wait for the interpreter's lock while it holds it (a fault in a Python thread, with no
free slot), so whatever frees slots must not need that lock. Its other end, the program, is main().
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from livedumpfs import errors
from livedumpfs.closing import Closing
from livedumpfs.errors import LivedumpError, MachineError, os_cause
from livedumpfs.stores.base_image import find_base
from livedumpfs.stores.receive import LOCK_WAIT_S, Published, receive_locked, store_for_dump

_PATIENCE_S: Final = 5.0
"""For a process that is to end."""


class _Refused(msgspec.Struct, tag=True):
    """Why it did not go on."""

    kind: str
    message: str
    errno: int
    hint: str


class _Ready(msgspec.Struct, tag=True):
    """The store is open and locked."""

    chunk_size: int
    base: str
    """Dump id; "": the store has none of the bases."""


class _Done(msgspec.Struct, tag=True):
    """The dump is in the store."""

    published: Published


_ANSWER: Final = msgspec.json.Decoder(_Refused | _Ready | _Done)


class Receiver(Closing):
    """`write_end` is the pipe for the dump; set it to -1 when another object closes it."""

    def __init__(self, url: str, *, bases: Sequence[bytes] = (), granule: int = 0) -> None:
        """The store is made where there is nothing. `bases`: see find_base; `granule`: see
        store_for_dump. What that raises; TargetError EBUSY: gc works on it; MachineError: no
        process."""
        read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = _begin(url, bases, granule, read_end)
        except OSError as error:
            os.close(self.write_end)
            code = error.errno or 0
            raise MachineError(
                f"cannot start a process for the store {url}: {os_cause(code)}", errno=code
            ) from error
        finally:
            os.close(read_end)
        try:
            ready = self._answer()
            assert isinstance(ready, _Ready)
        except BaseException:
            self.close()
            raise
        self.chunk_size: int = ready.chunk_size
        """Of the store, in bytes."""
        self.base = bytes.fromhex(ready.base)
        """Dump id of the base that the store has; b"": none."""

    def _answer(self) -> Any:
        """The next one. What it was refused with; MachineError: the process was killed."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise MachineError("the process that writes the store has ended before its time")
        answer = _ANSWER.decode(line)
        if isinstance(answer, _Refused):
            raise getattr(errors, answer.kind)(answer.message, errno=answer.errno, hint=answer.hint)
        return answer

    def finish(self) -> Published:
        """Return when the dump is published, after its last byte was written, or raise why it is
        not: as receive()."""
        done = self._answer()
        assert isinstance(done, _Done)
        return done.published

    def close(self) -> None:
        """End the process, which gives up a dump that is not published; harmless when done
        twice."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def _begin(
    url: str, bases: Sequence[bytes], granule: int, read_end: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__, url, str(granule), *(one.hex() for one in bases)],
        stdin=read_end,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(one or os.getcwd() for one in sys.path)},
        start_new_session=True,  # a Ctrl-C is the program's, which ends the dump or goes on
    )


def main(url: str, granule: str, *bases: str) -> None:
    """The program: the dump comes by standard input, answers go to standard output."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        store, _ = store_for_dump(url, granule=int(granule))
        with store, store.lock(wait_s=LOCK_WAIT_S):
            base = find_base(store, [bytes.fromhex(one) for one in bases])
            _tell(_Ready(store.about.chunk_size, base.block.dump_id.hex() if base else ""))
            _tell(_Done(receive_locked(sys.stdin.fileno(), store, base=base)))
    except LivedumpError as error:
        _tell(_Refused(type(error).__name__, error.message, error.errno or 0, error.hint))
    except OSError as error:
        _tell(_Refused("TargetError", os_cause(error.errno or 0), error.errno or 0, ""))
    except MemoryError:
        _tell(_Refused("MachineError", "there is not enough memory", 0, ""))


def _tell(answer: _Refused | _Ready | _Done) -> None:
    os.write(sys.stdout.fileno(), msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
