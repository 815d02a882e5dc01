# SPDX-License-Identifier: GPL-2.0-or-later
"""One process that throws whatever comes to its mind at a host's mount: for test_control_fuzz.py.

    python control_fuzzer.py MOUNTPOINT SEED COUNT MAY_WAIT

Runs in the folder that its targets are in. No path that it makes up has a slash: it may be root.
Prints what came of it as JSON: kind of request -> errno name, or "ok" -> times. In place of EIO,
which is for what was not foreseen, the host's sentence.
"""

from __future__ import annotations

import collections
import ctypes
import errno
import itertools
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from livedumpfs import abi
from livedumpfs.abi import InitFlag
from livedumpfs.control import settings_files

TARGETS: Final = ("t0", "t1", "t2", "fifo", "folder", "null", "none/t")
ROOM: Final = 1 << 14
"""Bytes: the largest payload that an ioctl number can ask for."""
KNOWN: Final = (abi.START, abi.SWEEP, abi.RELEASE, abi.INIT, abi.INIT_TYPED, abi.SWEEP_TYPED,
                abi.STATUS)  # fmt: skip
CONTROL: Final = (*settings_files.names(), "state", "failed", "error")
FILES: Final = (
    "livedump", "stats.json", "metrics", "mem", "machine/console", "machine/registers",
    "machine/registers.json", "machine/map", "machine/state", "snapshot/vmcore", "snapshot/mem.raw",
    "snapshot/mem.lime", "snapshot/info.json", *(f"control/{name}" for name in CONTROL),
)  # fmt: skip
WORDS: Final = (
    b"", b"0", b"1", b"2", b"3", b"5", b"9", b"64", b"4096", b"64K", b"1GiB", b"-1", b"1e9", b"nan",
    b"inf", b"auto", b"memdump", b"filedump", b"none", b"elf", b"raw", b"kdump", b"zstd", b"zlib",
    b"block", b"fail", b"spill", b"swap", b"mprotect", b"sidecar", b"tail", b"30s", b"0.001",
    b"9" * 4000, b"18446744073709551616", *(os.fsencode(name) for name in TARGETS),
)  # fmt: skip
NUMBERS: Final = (0, 1, 2, 3, 5, 6, 22, 23, 64, 65, 4095, 4096, 4097, 1 << 16, 1 << 20, 1 << 26,
                  1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1)  # fmt: skip
POINTERS: Final = (0, 1, 4095, 1 << 12, (1 << 47) - 4096, 1 << 47, 1 << 63, 0xFFFF_8880_0000_0000,
                   0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_FF60_0000, (1 << 64) - 1)  # fmt: skip
MEMBERS: Final = tuple(
    name for name, *_ in abi.Init._fields_ if name not in ("version", "flags", "path", "sidecar")
)

libc = ctypes.CDLL(None, use_errno=True)


class Fuzzer:
    """Owns its open files; each request is one method, which raises the OSError it got."""

    def __init__(self, mountpoint: Path, seed: str, may_wait: bool) -> None:
        self.random = random.Random(seed)
        self.mountpoint = mountpoint
        self.may_wait = may_wait
        self.device = os.open(mountpoint / "livedump", os.O_RDONLY)
        self.room = ctypes.create_string_buffer(ROOM)
        self.found: collections.Counter[tuple[str, str]] = collections.Counter()
        self.requests: list[Callable[[], None]] = [
            self.unknown, self.near, self.status, self.pointer, self.typed_bytes,
            self.typed_sweep, self.write, self.read, self.step, self.release, self.typed_init,
            self.named, self.reopen,
        ]  # fmt: skip
        self.weights = [300, 160, 60, 60, 60, 50, 170, 60, 60, 20, 40, 1, 4]

    def run(self, count: int) -> None:
        """`count` requests."""
        for _ in range(count):
            request = self.random.choices(self.requests, self.weights)[0]
            try:
                request()
                result = "ok"
            except OSError as error:
                result = errno.errorcode[error.errno or errno.EIO]
                if result == "EIO" and request != self.read:
                    result = self.mountpoint.joinpath("control/error").read_text()
            self.found[request.__name__, result] += 1

    def bytes(self, size: int) -> bytes:
        """Any bytes but slashes."""
        return self.random.randbytes(size).replace(b"/", b"x")

    def ioctl(self, command: int, argument: int) -> None:
        code = libc.ioctl(self.device, ctypes.c_ulong(command), ctypes.c_void_p(argument))
        if code < 0:
            raise OSError(ctypes.get_errno(), "ioctl")

    def send(self, command: int, data: bytes) -> None:
        """With `data` in a buffer that any number has room in."""
        ctypes.memmove(self.room, data + bytes(ROOM - len(data)), ROOM)
        self.ioctl(command, ctypes.addressof(self.room))

    # ------------------------------------------------------------ any numbers

    def unknown(self) -> None:
        self.send(self._not_known(self.random.getrandbits(32)), self.bytes(64))

    def near(self) -> None:
        """A known number with a bit or two turned over, and whatever argument."""
        command = self.random.choice(KNOWN)
        for _ in range(self.random.randint(1, 2)):
            command ^= 1 << self.random.randrange(32)
        if self.random.random() < 0.3:
            self.ioctl(self._not_known(command), self.random.choice(POINTERS))
        else:
            self.send(self._not_known(command), self.bytes(self.random.choice((0, 8, 300))))

    def _not_known(self, command: int) -> int:
        return command ^ 0x80 if command in KNOWN else command

    # ---------------------------------------------------------- known numbers

    def status(self) -> None:
        if self.random.random() < 0.2:
            self.ioctl(abi.STATUS, self.random.choice(POINTERS))
        else:
            self.send(abi.STATUS, self.bytes(100))

    def pointer(self) -> None:
        """INIT with a pointer to nothing, to far too much, or, seldom, for it starts a helper
        process, to any bytes."""
        where = self.random.randrange(100)
        if where < 48:
            self.ioctl(abi.INIT, self.random.choice(POINTERS))
        elif where < 97:
            self.send(abi.INIT, b"x" * self.random.choice((256, 4095, 4096, 5000, ROOM)))
        else:
            self.send(abi.INIT, self.bytes(self.random.choice((1, 8, 300))))

    def typed_bytes(self) -> None:
        command = self.random.choice((abi.INIT_TYPED, abi.SWEEP_TYPED))
        self.send(command, self.bytes(self.random.choice((0, 4, 8, 100, 9000))))

    def typed_init(self) -> None:
        """A good request, and a few members of it changed."""
        request = abi.Init(version=abi.VERSION)
        request.flags = InitFlag.FORCE if self.random.random() < 0.8 else 0
        if self.random.random() < 0.95:
            request.flags |= InitFlag.NO_TARGET
        else:
            request.path = os.fsencode(self.random.choice(TARGETS))
        request.flags |= self.random.choice((0, 0, 0, InitFlag.RELEASE_ON_CLOSE, 8))
        for name in self.random.sample(MEMBERS, self.random.choice((0, 0, 0, 1, 2))):
            setattr(request, name, self.random.choice(NUMBERS))
        if self.random.random() < 0.1:
            request.sidecar = b"side"
        self.send(abi.INIT_TYPED, bytes(request))

    def named(self) -> None:
        self.send(abi.INIT, os.fsencode(self.random.choice(TARGETS)) + b"\0")

    def typed_sweep(self) -> None:
        flags = 1 if not self.may_wait else self.random.choice((0, 1, 1, 1, 2, 1 << 31))
        self.send(abi.SWEEP_TYPED, bytes(abi.Sweep(abi.VERSION, flags)))

    def step(self) -> None:
        steps = (abi.START, abi.START, abi.SWEEP) if self.may_wait else (abi.START,)
        self.ioctl(self.random.choice(steps), self.random.choice(POINTERS))

    def release(self) -> None:
        self.ioctl(abi.RELEASE, 0)

    def reopen(self) -> None:
        os.close(self.device)
        self.device = os.open(self.mountpoint / "livedump", os.O_RDONLY)

    # ------------------------------------------------------------------ files

    def write(self) -> None:
        name = self.random.choice(CONTROL)
        sort = self.random.randrange(3)
        if sort == 0:
            data = self.bytes(self.random.choice((1, 2, 8, 100, 4095, 4097, 1 << 17)))
        else:
            data = self.random.choice(WORDS) + b"\n" * (sort - 1)
        if name == "state":
            # 4 waits for the end of a sweep; 1 runs a helper process, which takes its time.
            if data.strip() == b"4" and not self.may_wait:
                return
            if data.strip() == b"1" and self.random.random() < 0.9:
                return
        fd = os.open(self.mountpoint / "control" / name, os.O_WRONLY)
        try:
            os.pwrite(fd, data, self.random.choice((0, 0, 1, 1 << 40)))
        finally:
            os.close(fd)

    def read(self) -> None:
        fd = os.open(self.mountpoint / self.random.choice(FILES), os.O_RDONLY)
        try:
            for _ in range(self.random.randint(1, 3)):
                offset = self.random.choice((0, 0, 1, 4096, 1 << 20, 1 << 24, 1 << 40))
                os.pread(fd, self.random.choice((1, 100, 4096, 1 << 16)), offset)
        finally:
            os.close(fd)


def main(mountpoint: str, seed: str, count: str, may_wait: str) -> None:
    fuzzer = Fuzzer(Path(mountpoint), seed, may_wait == "1")
    fuzzer.run(int(count))
    found = sorted(fuzzer.found.items())
    kinds = itertools.groupby(found, key=lambda item: item[0][0])
    print(json.dumps({kind: {one[0][1]: one[1] for one in of} for kind, of in kinds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
