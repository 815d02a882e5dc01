# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU command lines: what is read from them, added to them and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from livedumpfs.errors import UsageError
from livedumpfs.machines.qemu.command import QemuCommand
from livedumpfs.machines.qemu.options import parse_qemu_size, read_options, read_values

QEMU = "qemu-system-x86_64"
MEMFD = "memory-backend-memfd,id=ram0,size=1G,share=on"
FILE = "memory-backend-file,id=ram0,size=1G,mem-path=/dev/shm/x"
RAM1 = MEMFD.replace("ram0", "ram1")
NODE1 = ("-numa", "node,memdev=ram1")
RAM0 = ("-machine", "q35,memory-backend=ram0")
NO_PATH = "x-use-canonical-path-for-ramblock-id=off"
MIB = 1 << 20


def parse(*words: str) -> QemuCommand:
    return QemuCommand.parse([QEMU, *words])


def test_a_backend_a_monitor_and_a_pause_are_added_behind_the_users_own_words() -> None:
    words = ["-machine", "q35", "-m", "1G", "-append", "-m 7G quiet", "disk.img"]
    command = parse(*words)
    assert (command.program, command.backend, command.ram_size) == (QEMU, "pc.ram", 1024 * MIB)
    assert command.prepared("/run/a,b") == [
        *(QEMU, *words),
        *("-object", f"memory-backend-memfd,id=pc.ram,size={1024 * MIB},share=on,{NO_PATH}"),
        *("-machine", "memory-backend=pc.ram"),
        *("-S", "-qmp", "unix:/run/a,,b,server=on,wait=off"),
    ]


@pytest.mark.parametrize("machine", [RAM0, ("-numa", "node,memdev=ram0")])
@pytest.mark.parametrize(
    "made",
    [
        MEMFD,
        "memory-backend-memfd,id=ram0,size=1024M",
        f"{FILE},share=on",
        f"{FILE},share=true",
        '{"qom-type":"memory-backend-memfd","id":"ram0","size":1073741824,"share":true}',
        "qom-type=memory-backend-shm,id=ram0,size=1073741824",
    ],
)
def test_a_shared_backend_of_the_users_is_used(made: str, machine: tuple[str, str]) -> None:
    command = parse("-object", made, *machine, "-S")
    assert (command.backend, command.ram_size, command.stopped) == ("ram0", 1024 * MIB, True)
    assert command.prepared("/q") == [*command.argv, "-qmp", "unix:/q,server=on,wait=off"]


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (("env", "A=-daemonize", QEMU), QEMU),
        (("taskset", "-c", "0", f"/opt/bin/{QEMU}"), f"/opt/bin/{QEMU}"),
        (("numactl", "--membind=0", "/usr/libexec/qemu-kvm"), "/usr/libexec/qemu-kvm"),
        (("wrapper", "-name", "kvm"), "wrapper"),
        (("/usr/local/bin/wrapper",), "/usr/local/bin/wrapper"),
    ],
)
def test_what_stands_before_qemu_is_not_its_options(words: tuple[str, ...], program: str) -> None:
    command = QemuCommand.parse([*words, "-m", "1G"])
    assert (command.qemu, command.program) == (program, words[0])
    assert command.ram_size == 1024 * MIB
    with pytest.raises(UsageError, match="-daemonize"):
        QemuCommand.parse([*words, "-daemonize"])


@pytest.mark.parametrize(
    "program", ["kvm", "/usr/bin/qemu-kvm", "/a,b=c/kvm", "qemu-system-x86_64.old"]
)
@pytest.mark.parametrize(
    "words",
    [
        ("-pidfile", "/run/kvm"),
        ("-accel", "kvm,device=/dev/kvm"),
        ("-name", "qemu-system-prod"),
        ("-D", "/var/log/qemu/kvm"),
    ],
    ids=lambda words: words[0],
)
def test_no_word_behind_a_qemu_is_the_program(program: str, words: tuple[str, ...]) -> None:
    command = QemuCommand.parse([program, "-m", "1G", "-S", *words, "-display", "none"])
    assert (command.qemu, command.ram_size, command.stopped) == (program, 1024 * MIB, True)
    with pytest.raises(UsageError, match="-device vfio-pci"):
        QemuCommand.parse([program, "-device", "vfio-pci,host=01:00.0", *words])


def test_a_qemu_is_known_by_its_file(tmp_path: Path) -> None:
    """A script that looks for the same words is none."""
    emulator, wrapper = tmp_path / "emulator", tmp_path / "wrapper"
    emulator.write_bytes(b"\x7fELF\0QEMU emulator version 7.2\0")
    wrapper.write_text("#!/bin/sh\n$2 --version | grep -q 'QEMU emulator version' && exec $2")
    for path, found in ((emulator, str(emulator)), (wrapper, "/usr/bin/kvm")):
        assert QemuCommand.parse([str(path), "-S", "/usr/bin/kvm"]).qemu == found


@pytest.mark.parametrize("value", ["kvm,device=/dev/kvm", "path=/dev/kvm"])
def test_a_value_is_no_program(value: str) -> None:
    command = QemuCommand.parse(["wrapper", "-m", "1G", "-accel", value])
    assert (command.qemu, command.ram_size) == ("wrapper", 1024 * MIB)


def test_ram_is_called_as_qemu_calls_it() -> None:
    assert parse("-M", "microvm").backend == "microvm.ram"
    for words in ([], ["-M", "q35"], ["-machine", "accel=tcg"], ["-M", "pc-i440fx-4.0"]):
        assert parse(*words).backend == "pc.ram"


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ((), 128 * MIB),
        (("-m", "512"), 512 * MIB),
        (("-m", "2g"), 2048 * MIB),
        (("-m", "1.5G"), 1536 * MIB),
        (("-m", "size=1G,slots=2,maxmem=4G"), 1024 * MIB),
        (("-m", "slots=2,maxmem=4G", "-m", "size=256M"), 256 * MIB),
        (("--m", "1G"), 1024 * MIB),
        (("-m", "1000001K"), 1000008 * 1024),  # QEMU rounds up to 8 KiB
        (("-M", "q35,memory.size=256M"), 256 * MIB),
    ],
)
def test_the_size_of_ram(words: tuple[str, ...], size: int) -> None:
    assert parse(*words).ram_size == size


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-daemonize",), "-daemonize"),
        (("-chroot", "/var/empty"), "-chroot"),
        (("-run-with", "async-teardown=on,chroot=/var/empty"), "-run-with chroot"),
        (("-incoming", "defer"), "-incoming"),
        (("-mem-path", "/dev/hugepages"), "-mem-path"),
        (("-readconfig", "vm.cfg"), "-readconfig"),
        (("-preconfig",), "-preconfig"),
        (("-object", "memory-backend-ram,id=ram0,size=1G", *RAM0), "backend ram0"),
        (("-object", FILE, *RAM0), "ram0: it is not shared"),
        (("-object", f"{MEMFD[:-2]}off", *RAM0), "ram0: it is not shared"),
        (("-object", f"{MEMFD},hugetlb=on", *RAM0), "huge pages"),
        (("-object", f"{FILE},share=on,readonly=on", *RAM0), "read-only"),
        (("-object", f"{FILE},share=on,offset=4096", *RAM0), "does not begin"),
        (("-object", MEMFD), "it is not the guest's RAM"),
        (
            ("-object", MEMFD, "-object", RAM1, *RAM0),
            "backend ram1: it is not the guest's RAM",
        ),
        (
            ("-object", MEMFD, "-object", RAM1, "-numa", "node,memdev=ram0", *NODE1),
            "ram0, ram1: the guest's RAM is in pieces",
        ),
        (("-object", MEMFD, "-device", "pc-dimm,memdev=ram0"), "-device pc-dimm"),
        (("-device", "vhost-user-blk-pci,chardev=c"), "-device vhost-user-blk-pci"),
        (("-device", '{"driver":"vhost-user-fs-pci","chardev":"c"}'), "-device vhost-user-fs-pci"),
        (("-device", "vhost-vsock-pci,guest-cid=3"), "-device vhost-vsock-pci"),
        (("-device", "driver=vfio-pci,host=01:00.0"), "-device vfio-pci"),
        (("-netdev", "vhost-user,id=n,chardev=c"), "-netdev vhost-user"),
        (("-netdev", '{"type":"vhost-vdpa","id":"n"}'), "-netdev vhost-vdpa"),
        (("-netdev", "tap,id=n,vhost=on"), "vhost=on"),
        (("-netdev", "type=tap,id=n,vhostfd=5"), "vhost=on"),
        (("-nic", "tap,vhost=on"), "vhost=on"),
        (("-object", "cryptodev-vhost-user,id=c,chardev=d"), "cryptodev-vhost-user"),
        (("-drive", "file=nvme://0000:01:00.0/1,if=none"), "nvme://"),
        (("-blockdev", "driver=raw,file.driver=nvme,file.device=0000:01:00.0"), "driver nvme"),
        (("-blockdev", '{"driver":"raw","file":{"driver":"nvme"}}'), "driver nvme"),
    ],
)
def test_what_cannot_be_dumped_live_is_refused_by_name(words: tuple[str, ...], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse("-m", "1G", *words)
    assert named in str(caught.value)
    assert "live dumps of QEMU with" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "words",
    [
        ("-netdev", "tap,id=n,vhost=off"),
        ("-netdev", "tap,id=n,vhostforce=off"),
        (
            "-object",
            "memory-backend-ram,id=shared,size=1M",
            "-device",
            "ivshmem-plain,memdev=shared",
        ),
        ("-append", "-daemonize -device vfio-pci"),
        ("-drive", "file=nvme.img,if=virtio"),
        ("-device", "nvme,drive=d,serial=1"),
        ("-object", "rng-random,id=r"),
        ("-fw_cfg", "name=opt/x,string=vhost-user-fs"),
    ],
)
def test_what_looks_like_it_is_not(words: tuple[str, ...]) -> None:
    assert parse(*words).own_backend


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-m",), "-m misses its value"),
        (("-m", "lots"), "'lots' is no size"),
        (("-m", "0"), "no memory"),
        (("-machine", "q35,memory-backend=gone"), "'gone'"),
        (("-object", "memory-backend-memfd,id=ram0", *RAM0), "no size"),
        (("-object", "{oops"), "-object has a value that is no JSON"),
    ],
)
def test_words_that_make_no_sense(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse(*words)


def test_no_program() -> None:
    with pytest.raises(UsageError, match="no QEMU"):
        QemuCommand.parse([])


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a", {"driver": "a"}),
        ("a,b=1,c", {"driver": "a", "b": "1", "c": "on"}),
        ("a,b=x,,y,c=,,", {"driver": "a", "b": "x,y", "c": ","}),
        ("a,b=x,,,c=1", {"driver": "a", "b": "x,", "c": "1"}),
        ("driver=a,b==", {"driver": "a", "b": "="}),
        ("", {"driver": ""}),
        ('{"driver":"a","b":{"c":true,"d":2}}', {"driver": "a", "b.c": "on", "b.d": "2"}),
    ],
)
def test_values_are_read_as_qemu_reads_them(text: str, keys: dict[str, str]) -> None:
    assert read_values("device", text) == keys


def test_flags_take_no_value_and_images_are_no_options() -> None:
    found = read_options(["-S", "disk.img", "--smp", "2", "-M", "pc", "-unheard-of", "-S"])
    assert [str(one) for one in found] == ["-S", "-smp 2", "-machine pc", "-unheard-of -S"]


def test_sizes() -> None:
    assert parse_qemu_size("0x1000") == 4096
    assert parse_qemu_size("7") == 7
    assert parse_qemu_size("0.5k") == 512
    for text in ("", "1GiB", "-1", "1 G", "\u0661"):
        with pytest.raises(UsageError):
            parse_qemu_size(text)
