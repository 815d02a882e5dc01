# SPDX-License-Identifier: GPL-2.0-or-later
"""All that a user may try with a mount: how each attempt ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
from functools import partial

root, files, folders, ioctls, handed = json.loads(sys.argv[1])
found = {}


def attempt(what, action, *arguments):
    try:
        action(*arguments)
        found[what] = "ok"
    except OSError as error:
        found[what] = errno.errorcode[error.errno]


def use(name, flags, action=lambda fd: None):
    fd = os.open(os.path.join(root, name), flags)
    try:
        action(fd)
    finally:
        os.close(fd)


def order(number, fd):
    fcntl.ioctl(fd, number, bytearray(max(8, number >> 16 & 0x3FFF)) if number >> 30 else 0)


for name in folders:
    attempt("list " + name, os.listdir, os.path.join(root, name))
for name in files:
    path = os.path.join(root, name)
    attempt("stat " + name, os.stat, path)
    attempt("read " + name, use, name, os.O_RDONLY, lambda fd: os.read(fd, 4096))
    attempt("write " + name, use, name, os.O_WRONLY)
    attempt("both " + name, use, name, os.O_RDWR)
    attempt("truncate " + name, os.truncate, path, 0)
    attempt("chmod " + name, os.chmod, path, 0o777)
    attempt("unlink " + name, os.unlink, path)
attempt("create", use, "new", os.O_CREAT | os.O_RDWR)
for name, number in ioctls.items():
    attempt("ioctl " + name, use, "livedump", os.O_RDONLY, partial(order, number))
    attempt("handed ioctl " + name, order, number, handed["livedump"])
for name, fd in handed.items():
    if name != "livedump":
        attempt("handed write " + name, os.write, fd, b"5")
print(json.dumps(found))
