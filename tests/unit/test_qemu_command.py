# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU command lines: what is read from them, added to them and refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from livedumpfs.errors import LivedumpError, UsageError
from livedumpfs.machines.qemu import asking
from livedumpfs.machines.qemu.asking import Ram
from livedumpfs.machines.qemu.backend import check_backend
from livedumpfs.machines.qemu.command_line import QemuCommand
from livedumpfs.machines.qemu.config_file import monitor_config, read_config
from livedumpfs.machines.qemu.guest_memory import GuestMemory
from livedumpfs.machines.qemu.qemu_options import read_options, read_values, write_values

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
    assert (command.program, command.named) == (QEMU, "")
    assert command.prepared("/run/a,b", Ram(1024 * MIB, "pc.ram")) == [
        *(QEMU, *words),
        *("-object", f"memory-backend-memfd,id=pc.ram,size={1024 * MIB},share=on,{NO_PATH}"),
        *("-machine", "memory-backend=pc.ram"),
        *("-S", "-readconfig", "/run/a,b"),
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
    assert (command.named, command.stopped, command.ask_ram()) == ("ram0", True, None)
    assert command.prepared("/q", None) == [*command.argv, "-readconfig", "/q"]


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
    assert [str(one) for one in command.options][-1] == "-m 1G"
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
    assert (command.qemu, command.stopped) == (program, True)
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
    assert command.qemu == "wrapper"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-daemonize",), "-daemonize"),
        (("-chroot", "/var/empty"), "-chroot"),
        (("-run-with", "async-teardown=on,chroot=/var/empty"), "-run-with chroot"),
        (("-incoming", "defer"), "-incoming"),
        (("-mem-path", "/dev/hugepages"), "-mem-path"),
        (("-preconfig",), "-preconfig"),
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
        ("-mem-path", "/dev/hugepages"),
        ("-object", MEMFD),
        ("-object", MEMFD, "-object", RAM1, "-numa", "node,memdev=ram0", *NODE1),
        ("-object", MEMFD, "-device", "pc-dimm,memdev=ram0"),
        ("-object", MEMFD, "-device", "nvdimm,memdev=ram0"),
        ("-object", MEMFD, "-device", "virtio-mem-pci,memdev=ram0,requested-size=64M"),
    ],
)
def test_memory_of_other_kinds_has_another_way(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        parse("-m", "1G,maxmem=2G,slots=2", *words)
    assert "`livedump attach SOCKET`" in caught.value.hint


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
    assert not parse(*words).named


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        ({"type": "memory-backend-ram", "share": True}, "no memory that can be shared"),
        ({"type": "memory-backend-file", "share": False}, "it is not shared"),
        ({"type": "memory-backend-file", "share": True, "readonly": True}, "read-only"),
        ({"type": "memory-backend-file", "share": True, "offset": 4096}, "does not begin"),
    ],
)
def test_a_backend_that_will_not_do_is_refused(backend: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=f"memory backend ram0: .*{why}") as caught:
        check_backend("ram0", backend)
    assert caught.value.hint
    attached = "share" in why or "no memory" in why
    assert ("`livedump attach SOCKET`" in caught.value.hint) == attached
    check_backend("ram0", {"type": "memory-backend-shm", "share": True, "offset": 0})


def test_pages_that_no_store_can_wait_for_are_refused() -> None:
    with GuestMemory(os.memfd_create("ram"), 1 << 30) as memory:
        memory.expect_pages()
        memory.page_size = 2 << 20
        memory.expect_pages()
        memory.page_size = 1 << 30
        with pytest.raises(UsageError, match="memory of 1 GiB pages: a store would wait") as caught:
            memory.expect_pages()
        assert "2 MiB" in caught.value.hint


def test_words_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="-object has a value that is no JSON"):
        parse("-object", "{oops")


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


def missing(word: str) -> LivedumpError:
    return UsageError(f"{word} misses it")


def test_flags_take_no_value_and_images_are_no_options() -> None:
    words = ["-S", "disk.img", "--smp", "2", "-M", "pc", "-new", "-S", "-flag", "-S"]
    found = read_options(words, "-new".__eq__, missing)
    texts = [str(one) for one in found]
    assert texts == ["-S", "-smp 2", "-machine pc", "-new -S", "-flag", "-S"]
    with pytest.raises(UsageError, match="-m misses it"):
        read_options(["-S", "-m"], "-new".__eq__, missing)


def test_what_is_read_is_written() -> None:
    values = {"driver": "a", "b": "x,y", "c": ","}
    assert read_values("device", write_values(values)) == values


CONFIG = """\
# qemu config file

[device "d0"]
  driver = "virtio-net-pci"
  netdev = "n,0"
[memory]
size = "0x200"
[machine]
  type = "q35"
  accel = "tcg"
  empty = ""
[smp-opts]
  cpus = "2"
"""


def test_a_config_file_is_read_as_options(tmp_path: Path) -> None:
    path = tmp_path / "vm.cfg"
    path.write_text(CONFIG)
    options = parse("-S", "-readconfig", str(path), "-m", "1G").options
    assert [str(one) for one in options] == [
        "-S",
        "-device id=d0,driver=virtio-net-pci,netdev=n,,0",
        "-m size=0x200",
        "-machine type=q35,accel=tcg,empty=",
        "-smp cpus=2",
        "-m 1G",
    ]
    path.write_text('[device]\n  driver = "vfio-pci"\n')
    with pytest.raises(UsageError, match="-device vfio-pci"):
        parse("-readconfig", str(path))


def test_a_config_that_can_be_read_once_only_is_refused() -> None:
    with pytest.raises(UsageError, match="-readconfig /dev/null") as caught:
        parse("-readconfig", "/dev/null")
    assert "regular file" in caught.value.hint
    assert not parse("-readconfig", "/nosuch/file").options  # QEMU says that


def test_our_monitor_is_one_that_the_parser_knows(tmp_path: Path) -> None:
    path = tmp_path / "own.cfg"
    path.write_text(monitor_config("/run/a,b/q"))
    found = read_config(str(path))
    assert found and [one.name for one in found] == ["chardev", "mon"]
    assert found[0].values["path"] == "/run/a,b/q"
    assert found[1].values["chardev"] == found[0].values["id"]
    with pytest.raises(LivedumpError, match="quotation"):
        monitor_config('/run/a"b')


def test_what_a_program_around_qemu_prints_is_no_answer() -> None:
    printed = ["starting", "[" * 100_000, '{"id": 0}', "7", '{"id": 0, "return": {"size": 4096}}']
    assert dict(asking._returned("\n".join(printed))) == {0: {"size": 4096}}
