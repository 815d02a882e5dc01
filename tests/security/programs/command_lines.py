# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines (argv[2], JSON) of a user whose hosts are found in the folder argv[1]: the exit
code and the outputs of each."""

from __future__ import annotations

import contextlib
import encodings.ascii
import io
import json
import os
import shlex
import sys

import elftools.elf.elffile

from livedumpfs import client
from livedumpfs.cli import conclusion, connect, host_command, main, status_command
from livedumpfs.hosts import device, registry
from livedumpfs.mount import host

LOADED = (
    elftools.elf.elffile,
    encodings.ascii,
    shlex,
    client,
    device,
    host,
    connect,
    conclusion,
    status_command,
    host_command,
)
"""Before it is the user: what commands would import."""

registry.SYSTEM_DIRECTORY, lines = sys.argv[1], json.loads(sys.argv[2])
registry.FALLBACK_DIRECTORY = sys.argv[1] + "/mine-%d"
os.environ.pop("XDG_RUNTIME_DIR", None)


def said(line):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.main(line.split())
    return code, out.getvalue(), err.getvalue()


print(json.dumps([said(line) for line in lines]))
