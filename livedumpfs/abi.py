# SPDX-License-Identifier: GPL-2.0-or-later
"""The ioctl interface in numbers and structs, for both ends: the Python form of
native/livedump_ioctl.h.

A test compares every number, offset and size here with a compiled C program, and the choices that
are options with the words of their rows (livedumpfs/settings.py).
"""

from __future__ import annotations

import ctypes
import enum

from livedumpfs import kinds

VERSION = 1
POOL_AUTO = kinds.AUTO_NUMBER
PATH_MAX = kinds.PATH_MAX
"""Most bytes of a path, the NUL included."""
NO_PFN = 2**64 - 1
ID_SIZE = 16
"""Bytes of a dump id."""
HOLD_MOST_NS = 60 * 10**9
"""How long HOLD may hold a machine, and ..."""
AHEAD_MOST_NS = 600 * 10**9
"""... how far ahead START may be agreed on, and ..."""
LATE_NS = 10**8
"""... how much later it may begin, where nothing is said."""

_TYPE = 0xFF
_WRITE, _READ = 1, 2


class State(enum.IntEnum):
    """The state of a dump in control/state and STATUS; the numbers are those of SUSE's sysfs
    interface."""

    UNDEFINED = 0
    INIT = 1
    START = 2
    SWEEP = 3
    FINISH = 4
    UNINIT = 5


class Policy(enum.IntEnum):
    """What happens when no slot is free. 0 in a struct: as set in control/."""

    BLOCK = 1
    FAIL = 2
    SPILL = 3


class Format(enum.IntEnum):
    """Layout of the target. 0 in a struct: as set in control/."""

    ELF = 1
    RAW = 2
    KDUMP = 3


class Compression(enum.IntEnum):
    """How kdump stores pages. 0 in a struct: as set in control/."""

    ZSTD = 1
    ZLIB = 2
    LZO = 3
    SNAPPY = 4
    NONE = 5


class AtLimit(enum.IntEnum):
    """Without a target, when the pool cannot grow."""

    LOSE = 1
    HOLD = 2


class Table(enum.IntEnum):
    """Where a raw dump has its granule table. 0 in a struct: as set in control/."""

    SIDECAR = 1
    TAIL = 2


class Ended(enum.IntEnum):
    """Why the dump has ended."""

    NOT = 0
    RELEASE = 1
    AGE = 2


class Operation(enum.IntEnum):
    """The operation that failed first in a dump: enum ldfs_operation of the core."""

    NONE = 0
    WRITE_DATA = 1
    ZERO_DATA = 2
    READ_ARENA = 3
    WRITE_TABLE = 4
    SYNC = 5
    WAIT_SLOT = 6
    PROTECT = 7
    HANDLER = 8


class Arming(enum.IntEnum):
    """How START write-protects the memory. 0 in a struct: as set in control/."""

    SWAP = 1
    MPROTECT = 2


class Backend(enum.IntEnum):
    """What notices a store into protected memory. 0 in a struct: as set in control/."""

    SIGSEGV = 1
    UFFD = 2
    SIGBUS = 3
    AUTO = 4


class Verdict(enum.IntEnum):
    """The dump's verdict. NONE: there is none yet, or no dump."""

    NONE = 0
    CONSISTENT = 1
    TORN = 2
    INCOMPLETE = 3


class InitFlag(enum.IntFlag):
    """Flags of the typed INIT."""

    RELEASE_ON_CLOSE = 0x1
    FORCE = 0x2
    NO_TARGET = 0x4
    BUFFERED = 0x8


class SweepFlag(enum.IntFlag):
    """Flags of the typed SWEEP."""

    ASYNC = 0x1


class AnswerFlag(enum.IntFlag):
    """What a step by dump id says besides its times."""

    ALREADY = 0x1
    PENDING = 0x2


class StepFlag(enum.IntFlag):
    """Flags of a step by dump id."""

    ASYNC = 0x1


class Failure(ctypes.Structure):
    """The first error of a dump; `error` 0: none."""

    operation: int
    error: int
    pfn: int
    _fields_ = (
        ("operation", ctypes.c_uint32),
        ("error", ctypes.c_int32),
        ("pfn", ctypes.c_uint64),
    )


class Init(ctypes.Structure):
    """struct livedump_init. Zero members mean: as set in control/."""

    version: int
    flags: int
    policy: int
    format: int
    arming: int
    backend: int
    granule_size: int
    pool_size: int
    spill_limit: int
    sweep_rate: int
    stall_deadline_ns: int
    compression: int
    level: int
    threads: int
    table: int
    max_age_ns: int
    reserved: int
    path: bytes
    sidecar: bytes
    _fields_ = (
        ("version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("format", ctypes.c_uint32),
        ("arming", ctypes.c_uint32),
        ("backend", ctypes.c_uint32),
        ("granule_size", ctypes.c_uint64),
        ("pool_size", ctypes.c_uint64),
        ("spill_limit", ctypes.c_uint64),
        ("sweep_rate", ctypes.c_uint64),
        ("stall_deadline_ns", ctypes.c_uint64),
        ("compression", ctypes.c_uint32),
        ("level", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("table", ctypes.c_uint32),
        ("max_age_ns", ctypes.c_uint64),
        ("at_limit", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("path", ctypes.c_char * PATH_MAX),
        ("sidecar", ctypes.c_char * PATH_MAX),
    )


_FIRST_COUNTERS = (
    "granule_size",
    "granules",
    "remaining",
    "by_fault",
    "by_sweep",
    "holes",
    "lost",
    "faults",
    "steals",
    "slots_peak",
    "slot_waits",
    "bytes_written",
    "quiesce_ns",
    "arm_ns",
    "pause_ns",
    "stall_max_ns",
    "instant_mono_ns",
    "instant_wall_ns",
    "sweep_start_ns",
    "drained_ns",
)
STATUS_COUNTERS = (*_FIRST_COUNTERS, "target_end", "resume_ns", "slots_most")
"""Members of struct livedump_status that are counters of the core with the same name."""


class Status(ctypes.Structure):
    """struct livedump_status."""

    version: int
    state: int
    verdict: int
    policy: int
    format: int
    arming: int
    bytes_total: int
    bytes_done: int
    failure: Failure
    compression: int
    level: int
    threads: int
    table: int
    max_age_ns: int
    spill_limit: int
    target_end: int
    ended: int
    backend: int
    resume_ns: int
    so_far: int
    slots_most: int
    target: bytes
    _fields_ = (
        ("version", ctypes.c_uint32),
        ("state", ctypes.c_uint32),
        ("verdict", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("format", ctypes.c_uint32),
        ("arming", ctypes.c_uint32),
        ("bytes_total", ctypes.c_uint64),
        ("bytes_done", ctypes.c_uint64),
        *((name, ctypes.c_uint64) for name in _FIRST_COUNTERS),
        ("failure", Failure),
        ("compression", ctypes.c_uint32),
        ("level", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("table", ctypes.c_uint32),
        ("max_age_ns", ctypes.c_uint64),
        ("spill_limit", ctypes.c_uint64),
        ("target_end", ctypes.c_uint64),
        ("ended", ctypes.c_uint32),
        ("backend", ctypes.c_uint32),
        ("resume_ns", ctypes.c_uint64),
        ("so_far", ctypes.c_uint32),
        ("slots_most", ctypes.c_uint32),
        ("target", ctypes.c_char * PATH_MAX),
    )


class Sweep(ctypes.Structure):
    """struct livedump_sweep."""

    version: int
    flags: int
    _fields_ = (("version", ctypes.c_uint32), ("flags", ctypes.c_uint32))


class InitId(ctypes.Structure):
    """struct livedump_init_id."""

    init: Init
    dump_id: ctypes.Array[ctypes.c_uint8]
    answer: int
    reserved: int
    since: ctypes.Array[ctypes.c_uint8]
    options: ctypes.Array[ctypes.c_uint64]
    _fields_ = (
        ("init", Init),
        ("dump_id", ctypes.c_uint8 * ID_SIZE),
        ("answer", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("since", ctypes.c_uint8 * ID_SIZE),
        ("options", ctypes.c_uint64 * 10),
    )


class StatusId(ctypes.Structure):
    """struct livedump_status_id."""

    status: Status
    dump_id: ctypes.Array[ctypes.c_uint8]
    _fields_ = (("status", Status), ("dump_id", ctypes.c_uint8 * ID_SIZE))


INSTANT_TIMES = (
    "instant_mono_ns",
    "instant_wall_ns",
    "pause_ns",
    "stood_mono_ns",
    "stood_wall_ns",
    "ran_mono_ns",
    "ran_wall_ns",
)
"""Members of struct livedump_instant that are answers of a step."""


class StepRequest(ctypes.Structure):
    """struct livedump_instant."""

    version: int
    flags: int
    dump_id: ctypes.Array[ctypes.c_uint8]
    at_ns: int
    late_ns: int
    hold_ns: int
    answer: int
    reserved: int
    _fields_ = (
        ("version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("dump_id", ctypes.c_uint8 * ID_SIZE),
        ("at_ns", ctypes.c_uint64),
        ("late_ns", ctypes.c_uint64),
        ("hold_ns", ctypes.c_uint64),
        ("answer", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in INSTANT_TIMES),
    )


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | _TYPE << 8 | number


START = _ioc(0, 0x01, 0)
SWEEP = _ioc(0, 0x02, 0)
INIT = _ioc(0, 0x64, 0)
RELEASE = _ioc(0, 0x65, 0)
INIT_TYPED = _ioc(_WRITE, 0x66, ctypes.sizeof(Init))
STATUS = _ioc(_READ, 0x67, ctypes.sizeof(Status))
SWEEP_TYPED = _ioc(_WRITE, 0x68, ctypes.sizeof(Sweep))
INIT_ID = _ioc(_WRITE | _READ, 0x69, ctypes.sizeof(InitId))
START_TYPED = _ioc(_WRITE | _READ, 0x6A, ctypes.sizeof(StepRequest))
HOLD = _ioc(_WRITE | _READ, 0x6B, ctypes.sizeof(StepRequest))
ARM = _ioc(_WRITE | _READ, 0x6C, ctypes.sizeof(StepRequest))
GO = _ioc(_WRITE | _READ, 0x6D, ctypes.sizeof(StepRequest))
SWEEP_ID = _ioc(_WRITE | _READ, 0x6E, ctypes.sizeof(StepRequest))
RELEASE_ID = _ioc(_WRITE | _READ, 0x6F, ctypes.sizeof(StepRequest))
STATUS_ID = _ioc(_WRITE | _READ, 0x70, ctypes.sizeof(StatusId))


def offset_of(struct: type[ctypes.Structure], member: str) -> int:
    """Offset of a member in its struct, in bytes."""
    return int(vars(struct)[member].offset)


def payload_size(command: int) -> int:
    """Bytes of the argument, as encoded in an ioctl number."""
    return command >> 16 & 0x3FFF
