# SPDX-License-Identifier: GPL-2.0-or-later
"""What the board has (native/board/), as a device tree tells it to Linux."""

from __future__ import annotations

from livedumpfs.core.capi import lib
from livedumpfs.machines.riscv.device_tree import Node, Value, flatten

_HART_INTERRUPTS = 1
_PLIC = 2
_SUPERVISOR_EXTERNAL = 9
_CLOCK_HZ = 3686400
"""Of the serial line; it sends at once whatever this says."""


def board_tree(
    ram_size: int, arguments: str, initrd: tuple[int, int] | None, seed: bytes, *, disk: bool
) -> bytes:
    """The flattened tree. `arguments`: the kernel's command line. `initrd`: its first physical
    address, and the one behind it. `seed`: random bytes for the kernel."""
    chosen: dict[str, Value] = {
        "bootargs": arguments,
        "stdout-path": f"/soc/serial@{lib.LDFS_BOARD_UART:x}",
        "rng-seed": seed,
    }
    if initrd:
        chosen["linux,initrd-start"] = _long(initrd[0])
        chosen["linux,initrd-end"] = _long(initrd[1])
    memory: dict[str, Value] = {
        "device_type": "memory",
        "reg": _long(lib.LDFS_BOARD_RAM) + _long(ram_size),
    }
    return flatten(
        Node(
            {
                "#address-cells": 2,
                "#size-cells": 2,
                "compatible": "livedumpfs,riscv-board",
                "model": "livedumpfs,riscv-board",
            },
            {
                "chosen": Node(chosen),
                f"memory@{lib.LDFS_BOARD_RAM:x}": Node(memory),
                "cpus": _cpus(),
                "soc": _devices(disk=disk),
            },
        )
    )


def _cpus() -> Node:
    hart = Node(
        {
            "device_type": "cpu",
            "reg": 0,
            "status": "okay",
            "compatible": "riscv",
            "riscv,isa": "rv64imafdc",
            "riscv,isa-base": "rv64i",
            "riscv,isa-extensions": ("i", "m", "a", "f", "d", "c", "zicsr", "zifencei"),
            "mmu-type": "riscv,sv39",
        },
        {
            "interrupt-controller": Node(
                {
                    "#interrupt-cells": 1,
                    "interrupt-controller": (),
                    "compatible": "riscv,cpu-intc",
                    "phandle": _HART_INTERRUPTS,
                }
            )
        },
    )
    return Node(
        {
            "#address-cells": 1,
            "#size-cells": 0,
            "timebase-frequency": lib.LDFS_BOARD_TIMEBASE,
        },
        {"cpu@0": hart},
    )


def _devices(*, disk: bool) -> Node:
    plic: dict[str, Value] = {
        "compatible": ("sifive,plic-1.0.0", "riscv,plic0"),
        "reg": _place(lib.LDFS_BOARD_PLIC, lib.LDFS_BOARD_PLIC_SIZE),
        "#address-cells": 0,
        "#interrupt-cells": 1,
        "interrupt-controller": (),
        "interrupts-extended": (_HART_INTERRUPTS, _SUPERVISOR_EXTERNAL),
        "riscv,ndev": lib.LDFS_BOARD_IRQS,
        "phandle": _PLIC,
    }
    below = {
        f"plic@{lib.LDFS_BOARD_PLIC:x}": Node(plic),
        f"serial@{lib.LDFS_BOARD_UART:x}": _device(
            "ns16550a", lib.LDFS_BOARD_UART, lib.LDFS_BOARD_UART_IRQ,
            {"clock-frequency": _CLOCK_HZ},
        ),
        f"rtc@{lib.LDFS_BOARD_RTC:x}": _device(
            "google,goldfish-rtc", lib.LDFS_BOARD_RTC, lib.LDFS_BOARD_RTC_IRQ, {}
        ),
    }  # fmt: skip
    if disk:
        below[f"virtio@{lib.LDFS_BOARD_DISK:x}"] = _device(
            "virtio,mmio", lib.LDFS_BOARD_DISK, lib.LDFS_BOARD_DISK_IRQ, {}
        )
    about: dict[str, Value] = {
        "#address-cells": 2,
        "#size-cells": 2,
        "compatible": "simple-bus",
        "ranges": (),
    }
    return Node(about, below)


def _device(compatible: str, address: int, interrupt: int, more: dict[str, Value]) -> Node:
    return Node(
        {
            "compatible": compatible,
            "reg": _place(address, lib.LDFS_BOARD_DEVICE_SIZE),
            "interrupt-parent": _PLIC,
            "interrupts": interrupt,
            **more,
        }
    )


def _place(address: int, size: int) -> bytes:
    return _long(address) + _long(size)


def _long(value: int) -> bytes:
    return value.to_bytes(8, "big")
