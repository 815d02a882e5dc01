# SPDX-License-Identifier: GPL-2.0-or-later
"""A function in a process of its own: nothing that ran before is in its memory."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What it returns, or raises, SystemExit too. BrokenProcessPool: its process died."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as worker:
        return worker.submit(function, *args, **kwargs).result()
