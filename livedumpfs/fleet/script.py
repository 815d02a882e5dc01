# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts for `fleet map`: Python with a function run(dump), or a drgn script, which has `prog`.
Only the text of a script goes to the workers."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from livedumpfs.dumpfile import NewFile, convert_dump, open_dump
from livedumpfs.errors import TargetError, UsageError, os_cause

_copying = threading.Lock()


def read_script(path: str) -> str:
    """Its text. TargetError; UsageError: it is no Python."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        code = error.errno or 0
        raise TargetError(f"cannot read {path}: {os_cause(code)}", errno=code) from error
    try:
        ast.parse(text, path)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path} is not a Python script: {error}") from error
    return text


def has_run(text: str) -> bool:
    """Whether it is a script of the first kind."""
    functions = ast.FunctionDef, ast.AsyncFunctionDef
    return any(isinstance(one, functions) and one.name == "run" for one in ast.parse(text).body)


def run_script(text: str, name: str, dump: str, vmlinux: str | None) -> Any:
    """Run it on the dump at `dump`, on a worker. What its run(dump) returns; of a drgn script the
    rows that it leaves in `rows`, else the lines that it prints. Exceptions of the script pass."""
    if has_run(text):
        return run_function(text, name, dump)
    return run_drgn(text, name, dump, vmlinux)


def run_function(text: str, name: str, path: str) -> Any:
    """run(dump) of the script, with the open dump."""
    space: dict[str, Any] = {"__name__": "livedump_fleet_script", "__file__": name}
    exec(compile(text, name, "exec"), space)
    with open_dump(path) as dump:
        return space["run"](dump)


def call_function(function: Callable[[Any], Any], path: str) -> Any:
    """A function of the caller's program, with the open dump."""
    with open_dump(path) as dump:
        return function(dump)


def run_drgn(text: str, name: str, path: str, vmlinux: str | None) -> Any:
    """The script as the drgn command runs it, but for its output."""
    prog = drgn_program(path, vmlinux)
    out = io.StringIO()
    space: dict[str, Any] = {
        "__name__": "__main__", "__file__": name, "prog": prog, "print": partial(print, file=out),
    }  # fmt: skip
    exec(compile(text, name, "exec"), space)
    if "rows" in space:
        return space["rows"]
    return [{"output": line} for line in out.getvalue().splitlines()]


def drgn_program(path: str, vmlinux: str | None) -> Any:
    """A drgn.Program of the dump. ImportError: drgn is missing. Else as local_file."""
    import drgn

    prog = drgn.Program()
    prog.set_core_dump(local_file(path))
    if vmlinux:
        prog.load_debug_info([vmlinux])
    return prog


def local_file(path: str) -> str:
    """A file that other programs can open: the dump's own; or, of one in a store, a copy in the
    worker's folder, which is kept for the next question until the worker ends. InvalidDump,
    TargetError."""
    if os.path.exists(path):
        return path
    from distributed import get_worker

    name = hashlib.sha256(path.encode()).hexdigest()[:32]
    copy = os.path.join(get_worker().local_directory, f"livedump-{name}.vmcore")
    with _copying:
        if not os.path.exists(copy):
            with open_dump(path) as dump, NewFile(f"{copy}.new") as output:
                convert_dump(dump, "elf", output)
                output.finish()
            os.rename(f"{copy}.new", copy)
    return copy
