# SPDX-License-Identifier: GPL-2.0-or-later
"""makedumpfile, as a process: what it can do, how far it is, and how it ended."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import os
import re
import shutil
import signal
import subprocess
import threading
from typing import IO, Final

from livedumpfs.errors import LivedumpError, UsageError, os_cause
from livedumpfs.thread import needing_threads, start_thread

_FLAGS: Final = {"zstd": "-z", "lzo": "-l", "snappy": "-p", "zlib": "-c", "none": ""}
"""Compression -> makedumpfile's option, the best first."""
_BUILT_IN: Final = ("zlib", "none")
_SHARE: Final = re.compile(r"\s*([A-Za-z][\w ]*?) *: \[ *([\d.]+) %\] ?.?(?: +eta: *\S+)?\s*")
_COPYING: Final = "Copying data"
_PAGES: Final = re.compile(r"\s*([A-Z][\w -]*?)\s*: 0x([0-9a-f]+)")
_KINDS: Final = {
    "Original pages": "of",
    "Excluded pages": "all",
    "Pages filled with zero": "zero",
    "Non-private cache pages": "cache",
    "Private cache pages": "private cache",
    "User process data pages": "user",
    "Free pages": "free",
    "Hwpoison pages": "hwpoison",
    "Offline pages": "offline",
}
_MESSAGES: Final = "23"
"""Progress, ordinary messages, errors, and the report of what was left out."""
_NOT_KNOWN: Final = "The kernel version is not supported."
_NOISE: Final = (
    "makedumpfile Failed.", "The makedumpfile operation may be incomplete.", "STEP [", "Try `",
    "This is an incomplete dumpfile", _NOT_KNOWN,
)  # fmt: skip
"""Starts of lines that are no reason for a failure."""
_LINES: Final = 200
_VERSION_S: Final = 30.0
_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG."""


class FilterError(LivedumpError):
    """makedumpfile cannot be run, or failed."""


class Makedumpfile:
    """The installed makedumpfile."""

    def __init__(self) -> None:
        """FilterError: there is none, or it does not say what it is."""
        path = shutil.which("makedumpfile", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        if path is None:
            raise FilterError(
                "makedumpfile is not installed", errno=errno.ENOENT,
                hint="apt install makedumpfile",
            )  # fmt: skip
        self.path = path
        try:
            done = subprocess.run(
                [path, "-v"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", timeout=_VERSION_S,
                check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FilterError(f"cannot run {path}: {_cause(error)}") from error
        version = re.search(r"version ([\w.]+)", done.stdout)
        if not version:
            raise FilterError(f"{path} does not say its version", hint="it is no makedumpfile?")
        self.version = version[1]
        self._enabled = set(re.findall(r"^(\w+)\s+enabled$", done.stdout, re.MULTILINE))

    def compression(self, wanted: str) -> str:
        """The option for `wanted`, or for the best that there is when that is "". UsageError: this
        makedumpfile was built without it."""
        can = [name for name in _FLAGS if name in self._enabled or name in _BUILT_IN]
        if wanted and wanted not in can:
            raise UsageError(
                f"makedumpfile {self.version} here was built without {wanted}",
                hint=f"it has {', '.join(can)}",
            )
        return _FLAGS[wanted or can[0]]


def _cause(error: OSError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, OSError):
        return os_cause(error.errno or errno.EIO)
    return "it does not answer"


class MakedumpfileRun:
    """A makedumpfile at work. It ends when this process is killed."""

    def __init__(
        self, program: Makedumpfile, level: int, compression: str, core: str, out: int
    ) -> None:
        """Begin. `compression`: its option, or ""; `core`: the vmcore; `out`: fd of the file to
        write; -1: the flattened form goes to `stream`. FilterError; MachineError EAGAIN."""
        words = [program.path, "--message-level", _MESSAGES, "-d", str(level)]
        words += [compression] if compression else []
        words += ["-F", core] if out < 0 else ["-f", core, f"/proc/self/fd/{out}"]
        libc, parent = ctypes.CDLL(None), os.getpid()

        def die_with_us() -> None:
            libc.prctl(_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        self._out = f"/proc/self/fd/{out}"
        self._pieces: collections.deque[str] = collections.deque(maxlen=_LINES)
        self.share = 0.0
        """Of the pages that it copies, how many are copied."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stderr=writing,
                stdout=subprocess.PIPE if out < 0 else writing, pass_fds=[] if out < 0 else [out],
                env={**os.environ, "LC_ALL": "C"}, start_new_session=True, preexec_fn=die_with_us,
            )  # fmt: skip
        except OSError as error:
            os.close(reading)
            raise FilterError(f"cannot run {program.path}: {_cause(error)}") from error
        finally:
            os.close(writing)
        self.stream: IO[bytes] | None = self._process.stdout
        self._listener = threading.Thread(
            target=self._listen, args=[reading], name="livedump-makedumpfile", daemon=True
        )
        try:
            with needing_threads("follow makedumpfile"):
                start_thread(self._listener)
        except BaseException:
            os.close(reading)
            self.end()
            raise

    def _listen(self, fd: int) -> None:
        """Messages, until it ends. Progress comes with \\r, and without an end of line."""
        left = ""
        with open(fd, "rb", buffering=0) as file:
            while data := file.read(4096):
                *whole, left = re.split(r"[\r\n]", left + data.decode(errors="replace"))
                for piece in whole:
                    self._hear(piece)
                self._look(left)
                left = left[-4096:]
        self._hear(left)

    def _look(self, piece: str) -> re.Match[str] | None:
        found = _SHARE.match(piece)
        if found and found[1] == _COPYING:
            self.share = min(1.0, float(found[2]) / 100)
        return found

    def _hear(self, piece: str) -> None:
        found = self._look(piece)
        rest = (piece[found.end() :] if found else piece).strip()
        if rest:
            self._pieces.append(rest)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after `seconds` at the most."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._listener.join(_VERSION_S)
        return True

    def end(self) -> None:
        """Kill it if it runs still. It may take a while to die: see reap()."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Wait until it is gone."""
        self.end()
        self._process.wait()
        if self.stream:
            self.stream.close()

    @property
    def knows_kernel(self) -> bool:
        """False: it says that the guest's kernel is newer than what it was made for."""
        return _NOT_KNOWN not in self._pieces

    @property
    def excluded(self) -> dict[str, int]:
        """Pages by kind; "all": how many it left out, "of": how many there are. Empty: it does not
        say."""
        found = (match for one in list(self._pieces) if (match := _PAGES.match(one)))
        return {_KINDS[one[1]]: int(one[2], 16) for one in found if one[1] in _KINDS}

    def problem(self, name: str) -> str:
        """After its end: why it failed, in one sentence; "": it did not. `name`: of its file."""
        code = self._process.returncode
        if code == 0:
            return ""
        if code < 0:
            return f"makedumpfile was ended by {signal.Signals(-code).name}"
        said = [one for one in self._pieces if not one.startswith(_NOISE)]
        why = said[-1].replace(self._out, name) if said else f"exit status {code}"
        return f"makedumpfile failed: {why}"
