# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel knows of its own wall clock (adjtimex(2), read only). This module is a leaf."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Final

_STA_UNSYNC: Final = 0x0040
_STA_NANO: Final = 0x2000
_TIME_ERROR: Final = 5
_LATER_MEMBERS: Final = 11
"""Ints that the kernel keeps for members that are to come."""


class _Timex(ctypes.Structure):
    """struct timex."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_s", ctypes.c_long),
        ("time_part", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("later", ctypes.c_int * _LATER_MEMBERS),
    )


@dataclass(frozen=True)
class Clock:
    """CLOCK_REALTIME as the kernel sees it. The errors are what the program that keeps the clock
    (chrony, ntpd, systemd-timesyncd) told the kernel, and worth what that is worth; without such a
    program `max_error_ns` grows by half a millisecond each second, up to 16 s."""

    synchronised: bool
    """Such a program says that it is right. In a virtual machine the clock may be right without."""
    offset_ns: int
    """What is still to be corrected."""
    estimated_error_ns: int
    max_error_ns: int
    frequency_ppm: float
    """How much faster or slower the kernel lets it go, in millionths."""
    wall_ns: int
    """What it said, since the epoch."""


def read_clock() -> Clock:
    """Now. Needs no right, and changes nothing. OSError: the system forbids the call (a seccomp
    filter)."""
    found = _Timex()  # modes 0: only look
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.byref(found))
    if state < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"adjtimex: {os.strerror(code)}")
    part = 1 if found.status & _STA_NANO else 1000
    return Clock(
        synchronised=state != _TIME_ERROR and not found.status & _STA_UNSYNC,
        offset_ns=found.offset * part,
        estimated_error_ns=found.esterror * 1000,
        max_error_ns=found.maxerror * 1000,
        frequency_ppm=found.freq / 65536,
        wall_ns=found.time_s * 10**9 + found.time_part * part,
    )
