# SPDX-License-Identifier: GPL-2.0-or-later
"""livedump doctor: each check in its good and its bad forms, on a computer that is a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from livedumpfs.cli import doctor_command
from livedumpfs.cli.main import main
from livedumpfs.cli.outcome import Exit
from livedumpfs.clocks import Clock
from livedumpfs.doctor import CHECKS, PARTS, Finding, Health, System, examine
from livedumpfs.doctor import kernel_checks as kernel
from livedumpfs.doctor import memory_checks as memory
from livedumpfs.doctor import program_checks as programs
from livedumpfs.doctor import rights_checks as rights

OK, LIMITED, MISSING = Health.OK, Health.LIMITED, Health.MISSING
EVERYTHING = f"{(1 << 41) - 1:016x}"
NOTHING = f"{0:016x}"
THP = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
THP_2M = "/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/shmem_enabled"
POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"
GROUP = "/sys/fs/cgroup"
GOOD = {
    "/proc/sys/kernel/osrelease": "6.1.0-13-amd64\n",
    "/proc/sys/vm/unprivileged_userfaultfd": "1\n",
    "/proc/sys/vm/max_map_count": "1048576\n",
    "/proc/sys/vm/overcommit_memory": "0\n",
    "/proc/sys/kernel/yama/ptrace_scope": "0\n",
    "/proc/self/status": f"NoNewPrivs:\t0\nSeccomp:\t0\nCapEff:\t{EVERYTHING}\n",
    "/proc/self/limits": "Max realtime priority     0                    0\n",
    "/proc/self/cgroup": "0::/user/shell\n",
    "/proc/self/attr/current": "unconfined\n",
    "/proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable:    4000000 kB\n",
    "/sys/kernel/security/lsm": "capability,yama,apparmor",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    THP: "always within_size [advise] never deny force\n",
    f"{POOL}/free_hugepages": "200\n", f"{POOL}/resv_hugepages": "72\n",
    f"{POOL}/nr_hugepages": "256\n",
    "/dev/fuse": "", "/dev/userfaultfd": "", "/dev/loop-control": "", "/dev/kvm": "",
    "/run/libvirt/libvirt-sock": "",
    "/etc/fuse.conf": "user_allow_other\n",
}  # fmt: skip
"""A computer that has everything."""


@dataclass(frozen=True)
class Folder(System):
    """A computer of files alone, whose rights are told: tests run as root, which may open all."""

    forbidden: frozenset[str] = frozenset()
    lacking: frozenset[str] = frozenset()
    """Programs, modules and libraries that are not installed."""
    versions: dict[str, str] = field(default_factory=dict)

    def may_open(self, name: str) -> bool:
        return self.has(name) and name not in self.forbidden

    def program(self, name: str) -> str | None:
        return None if name in self.lacking else f"/usr/bin/{name}"

    def version_of(self, program: str) -> str:
        return self.versions.get(program, "QEMU emulator version 7.2.22 (Debian 1:7.2)")

    def has_module(self, name: str) -> bool:
        return name not in self.lacking

    def has_library(self, name: str) -> bool:
        return f"lib{name}" not in self.lacking


@pytest.fixture
def computer(tmp_path: Path) -> Folder:
    for name, text in GOOD.items():
        write(tmp_path, name, text)
    return Folder(tmp_path, user=0, processor="x86_64", python=(3, 11, 2))


def write(root: Path, name: str, text: str | None) -> None:
    """None: take the file away."""
    path = root / name.lstrip("/")
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def user(computer: Folder, **status: str) -> Folder:
    """The same for a user without rights."""
    lines = {"CapEff": NOTHING, "Seccomp": "0", "NoNewPrivs": "0", **status}
    text = "".join(f"{name}:\t{value}\n" for name, value in lines.items())
    write(computer.root, "/proc/self/status", text)
    return replace(computer, user=1000)


def test_nothing_is_missing_where_all_is_there(computer: Folder) -> None:
    found = {one.name: one for one in examine(computer) if one.name != "wall clock"}
    assert len(found) == len(CHECKS) - 1
    assert {name for name, one in found.items() if one.health is not OK} == set()
    assert all(one.purpose and one.found and not one.mend for one in found.values())


BAD: list[tuple[Callable[[System], Finding], dict[str, str | None], Health, str, str]] = [
    (kernel.kernel, {"/proc/sys/kernel/osrelease": "5.10.0-8"}, MISSING, "5.10", "Linux 5.14"),
    (kernel.kernel, {"/proc/sys/kernel/osrelease": None}, MISSING, "unknown", "Linux 5.14"),
    (kernel.fuse, {"/dev/fuse": None}, MISSING, "no /dev/fuse", "modprobe fuse"),
    (kernel.fuse, {"/dev/fuse": None, "/.dockerenv": ""}, MISSING, "no /dev/fuse", "--device"),
    (
        kernel.userfaultfd,
        {"/proc/sys/vm/unprivileged_userfaultfd": None, "/dev/userfaultfd": None},
        MISSING, "the kernel has none", "CONFIG_USERFAULTFD",
    ),
    (kernel.userfaultfd, {"/proc/sys/kernel/osrelease": "5.15.0"}, MISSING, "shared", "5.19"),
    (
        kernel.attached_userfaultfd, {"/proc/sys/vm/unprivileged_userfaultfd": "0"},
        MISSING, "only a QEMU of root", "sysctl -w vm.unprivileged_userfaultfd=1",
    ),
    (kernel.loop_devices, {"/dev/loop-control": None}, LIMITED, "no /dev/loop", "modprobe loop"),
    (
        kernel.clock_source,
        {"/sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet"},
        LIMITED, "hpet", "tsc",
    ),
    (
        memory.mappings, {"/proc/sys/vm/max_map_count": "65530"},
        LIMITED, "65530: granules of 64 KiB up to 3 GiB", "sysctl -w vm.max_map_count=",
    ),
    (memory.mappings, {"/proc/sys/vm/max_map_count": "100"}, LIMITED, "0 B", "sysctl"),
    (memory.memory, {"/proc/meminfo": "MemAvailable: 1024 kB\n"}, LIMITED, "1 MiB", "--ram"),
    (memory.memory, {"/proc/meminfo": None}, LIMITED, "0 B", "--ram"),
    (memory.memory, {"/proc/sys/vm/overcommit_memory": "2"}, LIMITED, "is 2", "overcommit"),
    (
        memory.memory_cgroup,
        {f"{GROUP}/user/memory.max": "209715200", f"{GROUP}/user/memory.current": "104857600"},
        LIMITED, "100 MiB left of 200 MiB", f"> {GROUP}/user/memory.max",
    ),
    (
        memory.memory_cgroup,
        {
            "/proc/self/cgroup": "5:cpu:/x\n4:memory:/box\n0::/\n",
            f"{GROUP}/memory/memory.limit_in_bytes": "104857600",
            f"{GROUP}/memory/memory.usage_in_bytes": "209715200",
            f"{GROUP}/memory/box/memory.limit_in_bytes": "9223372036854771712",
        },
        LIMITED, "0 B left of 100 MiB", f"> {GROUP}/memory/memory.limit_in_bytes",
    ),
    (memory.transparent_huge_pages, {THP: "[never]"}, LIMITED, "never", f"echo advise > {THP}"),
    (memory.transparent_huge_pages, {THP_2M: "inherit [deny]"}, LIMITED, THP_2M, THP_2M),
    (memory.transparent_huge_pages, {THP: None}, LIMITED, "the kernel has none", "--huge 2M"),
    (
        memory.huge_page_pool, {f"{POOL}/free_hugepages": "72"},
        MISSING, "no page of 2 MiB is free", "sysctl -w vm.nr_hugepages=384",
    ),
    (memory.huge_page_pool, {f"{POOL}/free_hugepages": None}, MISSING, "no huge", "--huge thp"),
    (
        rights.confinement,
        {"/run/.containerenv": "", "/proc/self/status": "Seccomp:\t2\nCapEff:\t0\n"},
        LIMITED, "podman container, with a seccomp filter", "seccomp=unconfined",
    ),
    (
        rights.confinement, {"/proc/self/status": "Seccomp:\t2\n"},
        LIMITED, "a service, with a seccomp filter", "SystemCallFilter",
    ),
    (
        rights.security_modules, {"/proc/self/attr/current": "docker-default (enforce)\n"},
        LIMITED, "AppArmor holds it: docker-default", "aa-complain docker-default",
    ),
    (
        rights.security_modules,
        {"/proc/self/attr/current": "docker-default (enforce)", "/.dockerenv": ""},
        LIMITED, "AppArmor", "--security-opt apparmor=unconfined",
    ),
    (
        rights.security_modules,
        {"/sys/fs/selinux/enforce": "1", "/proc/self/attr/current": "u:r:container_t:s0\0"},
        LIMITED, "SELinux holds it as u:r:container_t:s0", "audit2allow",
    ),
    (programs.libvirt, {"/run/libvirt/libvirt-sock": None}, MISSING, "no libvirtd", "apt-get"),
    (programs.kvm, {"/dev/kvm": None}, LIMITED, "TCG", "modprobe kvm"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "files", "health", "found", "mend"), BAD)
def test_what_is_missing_is_named_with_what_mends_it(
    computer: Folder,
    check: Callable[[System], Finding],
    files: dict[str, str | None],
    health: Health,
    found: str,
    mend: str,
) -> None:
    for name, text in files.items():
        write(computer.root, name, text)
    seen = check(computer)
    assert seen.health is health
    assert found in seen.found
    assert mend in seen.mend


def test_another_processor_has_no_core(computer: Folder) -> None:
    seen = kernel.kernel(replace(computer, processor="riscv64"))
    assert seen.health is MISSING and "riscv64" in seen.found
    assert "x86_64 or aarch64" in seen.mend


def test_arm64_has_a_core_and_protects_shared_memory_later(computer: Folder) -> None:
    arm64 = replace(computer, processor="aarch64")
    for release, health in (("6.1.0-35-arm64", MISSING), ("6.12.117+deb13-arm64", OK)):
        write(arm64.root, "/proc/sys/kernel/osrelease", release)
        assert kernel.kernel(arm64).health is OK
        seen = kernel.userfaultfd(arm64)
        assert seen.health is health and ("6.10" in seen.mend) == (health is MISSING)


@pytest.mark.parametrize(
    ("lacking", "status", "found", "mend"),
    [
        ("libfuse", {}, "libfuse.so.2", "apt-get install libfuse2"),
        ("fusermount3 fusermount", {}, "fusermount is not installed", "apt-get install fuse3"),
        ("", {"NoNewPrivs": "1"}, "no_new_privs", "NoNewPrivileges=no"),
        ("fusermount", {}, "/dev/fuse and libfuse 2", ""),
    ],
)
def test_a_mount_of_a_user(
    computer: Folder, lacking: str, status: dict[str, str], found: str, mend: str
) -> None:
    seen = kernel.fuse(replace(user(computer, **status), lacking=frozenset(lacking.split())))
    assert found in seen.found and mend in seen.mend
    assert (seen.health is OK) == (not mend)


def test_root_without_its_rights_cannot_mount(computer: Folder) -> None:
    user(computer)
    seen = kernel.fuse(computer)
    assert seen.health is MISSING and "CAP_SYS_ADMIN" in seen.found
    assert seen.mend == "unshare -Urm"


def test_a_device_that_this_user_may_not_open(computer: Folder) -> None:
    shut = frozenset({"/dev/fuse", "/dev/userfaultfd", "/dev/loop-control", "/dev/kvm"})
    shut_out = replace(user(computer), forbidden=shut)
    write(computer.root, "/proc/sys/vm/unprivileged_userfaultfd", "0")
    seen = kernel.fuse(shut_out)
    assert seen.health is MISSING and seen.mend == "chmod 0666 /dev/fuse"
    seen = kernel.userfaultfd(shut_out)
    assert seen.health is MISSING and seen.mend == "sysctl -w vm.unprivileged_userfaultfd=1"
    assert kernel.loop_devices(shut_out).health is LIMITED
    assert "usermod" in programs.kvm(shut_out).mend


def test_each_way_to_userfaultfd(computer: Folder) -> None:
    assert "every process" in kernel.userfaultfd(computer).found
    write(computer.root, "/proc/sys/vm/unprivileged_userfaultfd", "0")
    assert "/dev/userfaultfd" in kernel.userfaultfd(computer).found
    shut = replace(computer, forbidden=frozenset({"/dev/userfaultfd"}))
    seen = kernel.userfaultfd(shut)
    assert seen.health is OK and "CAP_SYS_PTRACE" in seen.found


def test_what_a_user_may_not_do_besides(computer: Folder) -> None:
    write(computer.root, "/etc/fuse.conf", "#user_allow_other\n")
    write(computer.root, "/proc/sys/kernel/yama/ptrace_scope", "1\n")
    ordinary = user(computer)
    for check in (kernel.sharing, rights.tracing, rights.real_time):
        seen = check(ordinary)
        assert seen.health is LIMITED and seen.mend, seen
    write(computer.root, "/proc/self/limits", "Max realtime priority     50      50\n")
    assert "RLIMIT_RTPRIO" in rights.real_time(ordinary).found


def test_a_clock_that_no_program_keeps() -> None:
    kept = Clock(True, 0, 10, 20_000_000, 0.0, 1)
    assert kernel.wall_clock(System(), kept).health is OK
    assert "20 ms" in kernel.wall_clock(System(), kept).found
    seen = kernel.wall_clock(System(), replace(kept, synchronised=False))
    assert seen.health is LIMITED and "chrony" in seen.mend


def test_python_and_its_packages(computer: Folder) -> None:
    old = programs.python(replace(computer, python=(3, 9, 1)))
    assert old.health is MISSING and "3.9.1" in old.found and "3.11" in old.mend
    bare = programs.python(replace(computer, lacking=frozenset({"fuse", "numpy"})))
    assert bare.health is MISSING and bare.mend == "pip install fusepy numpy"
    unbuilt = programs.core(replace(computer, lacking=frozenset({"livedumpfs._native"})))
    assert unbuilt.health is MISSING and unbuilt.mend == "make"


@pytest.mark.parametrize(
    ("said", "health", "found"),
    [
        ("QEMU emulator version 11.1.50 (v11)", OK, "11.1.50"),
        ("QEMU emulator version 7.0.0", MISSING, "only for attach"),
        ("QEMU emulator version 5.2.0", MISSING, "too old for either"),
        ("", LIMITED, "unknown version"),
    ],
)
def test_versions_of_qemu(computer: Folder, said: str, health: Health, found: str) -> None:
    program = "/usr/bin/qemu-system-x86_64"
    seen = programs.qemu(replace(computer, versions={program: said}))
    assert seen.health is health and found in seen.found
    gone = programs.qemu(replace(computer, lacking=frozenset({"qemu-system-x86_64"})))
    assert gone.health is MISSING and gone.mend == "apt-get install qemu-system-x86"


def test_packages_that_only_some_need(computer: Folder) -> None:
    without = replace(computer, lacking=frozenset({"libvirt", "distributed", "crash", "drgn"}))
    assert programs.libvirt(without).mend == "pip install 'livedumpfs[libvirt]'"
    assert programs.fleet(without).mend == "pip install 'livedumpfs[fleet]'"
    seen = programs.readers(without)
    assert seen.mend == "apt-get install crash; pip install drgn"


def test_containers_are_known(computer: Folder) -> None:
    assert kernel.container(computer) == ""
    write(computer.root, "/proc/1/environ", "PATH=/bin\0container=lxc\0")
    assert kernel.container(computer) == "lxc"
    write(computer.root, "/run/systemd/container", "systemd-nspawn\n")
    assert kernel.container(computer) == "systemd-nspawn"


def test_only_what_is_asked_for_counts(computer: Folder) -> None:
    """And a part that nothing needs would be no part."""
    findings = examine(computer)
    for part in PARTS:
        assert any(one.needed([part]) for one in findings), part
    assert set(PARTS) == {"host", *doctor_command._PARTS}
    one = Finding("x", "y", MISSING, "z", "w", ("huge",))
    assert one.stops(["host", "huge"]) and not one.stops(["host"])
    assert not replace(one, health=LIMITED).stops(["huge"])


def test_this_computer(capsys: pytest.CaptureFixture[str]) -> None:
    """A real run: tests run where hosts run."""
    assert main(["doctor"]) == Exit.DONE
    out, err = capsys.readouterr()
    assert not err and "all that is needed is there" in out
    assert main(["doctor", "--json"]) == Exit.DONE
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True and len(found["findings"]) == len(CHECKS)


def test_what_is_missing_fails(
    computer: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("livedumpfs.doctor.System", lambda: computer)
    write(computer.root, "/dev/fuse", None)
    write(computer.root, f"{POOL}/free_hugepages", "0")
    assert main(["doctor"]) == Exit.FAILED
    out, err = capsys.readouterr()
    assert "mend: modprobe fuse" in out and "all that is needed" not in out
    assert err.count("\n") == 1 and "FUSE" in err and "hugetlb" not in err
    assert main(["doctor", "--for", "huge", "--json"]) == Exit.FAILED
    out, err = capsys.readouterr()
    assert json.loads(out)["ok"] is False and "hugetlb" in err
