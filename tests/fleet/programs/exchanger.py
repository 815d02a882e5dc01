# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that pays others, served by a host: accounts in its memory, and amounts that travel
over sockets to machines of the same kind in other processes.

Usage: exchanger.py INDEX COUNT MOUNTPOINT FOLDER RATE GROUP

FOLDER has the sockets; RATE is payments a second; GROUP may be empty. What a machine has sent stays
in its memory until the receiver has it: so the accounts of all machines and what is in flight have
one sum, at each instant that is one for all (tests/fleet/exchange.py).
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import sys
import threading
import time

import numpy as np

from livedumpfs import Arena
from livedumpfs.machines.threads import ThreadMachine
from livedumpfs.mount.host import Host
from tests.fleet.exchange import ACCOUNTS, BEGIN, NAMES

PAY, GOT = 1, 2
STILL = 4 << 20
MESSAGE = struct.Struct("<BIqq")
"""Kind, index of the sender, number of the payment, amount."""
CONNECT_S = 60.0


class Exchanger:
    """The accounts of one machine, and its ends of the sockets."""

    def __init__(self, index: int, count: int, rate: float) -> None:
        self.index, self.count, self.rate = index, count, rate
        self.random = random.Random(index)
        self.arena = Arena("6MiB")
        shapes = {"accounts": (ACCOUNTS,), "sent": (count,), "amount": (count,), "got": (count,)}
        self.beats = self.arena.array("i8", 1)
        self.arrays = {name: self.arena.array("i8", shapes[name], name=name) for name in NAMES}
        self.arrays["accounts"][:] = BEGIN
        # What no payment changes is left to the sweep, which can be told to be slow.
        still = self.arena.array("u1", STILL)
        still[:] = np.frombuffer(self.random.randbytes(STILL), "u1")
        self.gate = threading.Lock()
        """Held while memory changes: what quiesce waits for."""
        self.peers: dict[int, socket.socket] = {}
        self.writing = {peer: threading.Lock() for peer in range(count)}

    # --------------------------------------------------------------------- payments

    def pay(self) -> None:
        """To one that has got the last payment, for ever."""
        while True:
            time.sleep(self.random.expovariate(self.rate))
            with self.gate:
                self.beats[0] += 1
            peer = self.random.choice(list(self.peers))
            if self.arrays["amount"][peer]:
                continue
            amount, account = self.random.randrange(1, 1000), self.random.randrange(ACCOUNTS)
            with self.gate:
                number = int(self.arrays["sent"][peer]) + 1
                self.arrays["accounts"][account] -= amount
                self.arrays["amount"][peer] = amount
                self.arrays["sent"][peer] = number
            self.send(peer, PAY, number, amount)

    def send(self, peer: int, kind: int, number: int, amount: int) -> None:
        """Nothing to one that has gone."""
        with self.writing[peer], contextlib.suppress(OSError):
            self.peers[peer].sendall(MESSAGE.pack(kind, self.index, number, amount))

    def receive(self, peer: int) -> None:
        """All messages of one peer. One that has gone takes part no more."""
        while True:
            try:
                data = self.peers[peer].recv(MESSAGE.size, socket.MSG_WAITALL)
            except OSError:
                return
            if len(data) < MESSAGE.size:
                return
            kind, sender, number, amount = MESSAGE.unpack(data)
            assert sender == peer
            if kind == PAY:
                with self.gate:
                    assert number == self.arrays["got"][peer] + 1
                    self.arrays["got"][peer] = number
                    self.arrays["accounts"][number % ACCOUNTS] += amount
                self.send(peer, GOT, number, amount)
            else:
                with self.gate:
                    self.arrays["amount"][peer] = 0

    # ---------------------------------------------------------------------- sockets

    def meet(self, folder: str) -> None:
        """Connect to all that have a lower index, and wait for the others."""
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"{folder}/{self.index}.socket")
        server.listen(self.count)
        server.settimeout(CONNECT_S)
        for peer in range(self.index):
            self.peers[peer] = connected(f"{folder}/{peer}.socket")
            self.peers[peer].sendall(struct.pack("<I", self.index))
        while len(self.peers) < self.count - 1:
            other, _ = server.accept()
            (peer,) = struct.unpack("<I", other.recv(4, socket.MSG_WAITALL))
            self.peers[peer] = other
        server.close()

    def run(self) -> None:
        for peer in self.peers:
            threading.Thread(target=self.receive, args=(peer,), daemon=True).start()
        threading.Thread(target=self.pay, daemon=True).start()


def connected(path: str) -> socket.socket:
    """It may be there only later."""
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(path)
            return peer
        except OSError:
            peer.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class ExchangeMachine(ThreadMachine):
    """Its threads as a machine that stands while none of them changes memory."""

    name = "exchanger"


def main() -> None:
    index, count, mountpoint, folder, rate, group = sys.argv[1:]
    exchanger = Exchanger(int(index), int(count), float(rate))
    gate = exchanger.gate
    machine = ExchangeMachine(exchanger.arena, quiesce=gate.acquire, resume=gate.release)
    host = Host(machine, mountpoint, group=int(group) if group else None)

    def ready() -> None:
        exchanger.meet(folder)
        exchanger.run()
        print("ready", flush=True)

    host.run(ready)


if __name__ == "__main__":
    main()
