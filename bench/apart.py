# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a function in a new process, without anything in memory that ran before."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def apart(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The function's result, or its exception, SystemExit too. BrokenProcessPool: the process
    died."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as worker:
        return worker.submit(function, *args, **kwargs).result()
