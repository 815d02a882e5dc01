# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of a program that exchanges amounts with another one over a socket. Its memory begins with
the amount that it has, what it has sent in all, and what it has received. Arguments: the mount, and
the descriptor of the socket."""

from __future__ import annotations

import socket
import sys
import threading
import time

from livedumpfs import Arena
from livedumpfs.machines import ThreadMachine
from livedumpfs.mount.host import Host

AMOUNT, SENT, RECEIVED = range(3)
mountpoint, descriptor = sys.argv[1:]
peer = socket.socket(fileno=int(descriptor))
arena = Arena("1MiB")
words = arena.array("i8", (3,), name="account")
words[AMOUNT] = 1_000_000
gate = threading.Lock()


def send() -> None:
    number = 0
    while True:
        number += 1
        with gate:
            words[AMOUNT] -= number % 7
            words[SENT] += number % 7
        # Not within: a peer that stands reads nothing, and this program could not be stopped then.
        peer.sendall(bytes([number % 7]))
        time.sleep(0.0002)


def receive() -> None:
    while data := peer.recv(16):
        with gate:
            words[AMOUNT] += sum(data)
            words[RECEIVED] += sum(data)


for work in (send, receive):
    threading.Thread(target=work, daemon=True).start()
machine = ThreadMachine(arena, gate.acquire, gate.release)
Host(machine, mountpoint).run(lambda: print("ready", flush=True))
