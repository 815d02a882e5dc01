# SPDX-License-Identifier: GPL-2.0-or-later
"""INIT, START and RELEASE at the device argv[1] with each target of argv[2], one a line. Further
words: "force", "sweep" for the whole dump, the number of a format."""

from __future__ import annotations

import errno
import sys

from livedumpfs.abi import Format
from livedumpfs.client import Client, InitOptions
from livedumpfs.errors import LivedumpError


def init_all(device: str, targets: str, *words: str) -> None:
    client = Client(device)
    options = InitOptions(force="force" in words)
    for word in words:
        if word.isdigit():
            options = InitOptions(force="force" in words, format=Format(int(word)))
    for target in targets.split("\n"):
        try:
            client.init(target, options)
            client.start()
            if "sweep" in words:
                client.sweep()
                client.finish()
            client.release()
            print("done")
        except LivedumpError as error:
            print(errno.errorcode[error.errno], error)


if __name__ == "__main__":
    init_all(*sys.argv[1:])
