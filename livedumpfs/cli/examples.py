# SPDX-License-Identifier: GPL-2.0-or-later
"""Two examples for each command: for its --help and its man page. tests/unit/test_cli_help.py
parses them."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "host": (
        ("livedump host --ram 512M --vcpus 2", "the built-in guest, until Ctrl-C"),
        ("livedump host --format kdump --output /backup/vm.kdump", "what a plain INIT gets"),
        ("livedump host --ram 512M --metrics 9105", "with its metrics at 127.0.0.1:9105"),
        ("livedump host --arch riscv64", "the built-in guest for riscv64"),
    ),
    "console": (
        ("livedump console", "of the only host: what its Linux prints, and keys to it"),
        ("livedump console --no-input --device vm1", "only show, of the host vm1"),
    ),
    "qemu": (
        ("livedump qemu -- qemu-system-x86_64 -m 2G disk.img", "a guest that can be dumped"),
        (
            "livedump qemu --check -- qemu-system-x86_64 -m 2G disk.img",
            "would it work here? Nothing is started",
        ),
    ),
    "attach": (
        ("livedump attach /run/vm1/qmp.sock", "a QEMU that runs already, by its monitor"),
        ("livedump attach --libvirt debian12", "the same for a domain of libvirt"),
    ),
    "dump": (
        ("livedump dump /dev/loop0", "all of the only host's machine, to a block device"),
        (
            "livedump dump --device vm1 --keep 7 '/backup/vm1-{date}.elf'",
            "of the host vm1, and the last seven stay",
        ),
        ("livedump dump store:/backup/vm1", "into a store, where each chunk is there once"),
    ),
    "init": (
        ("livedump init /dev/loop0", "open the target; the next step is start"),
        ("livedump init --format kdump --level 3 vm.kdump", "with settings of this dump"),
    ),
    "start": (
        ("livedump start", "stop, arm, resume; the next step is sweep"),
        ("livedump start --no-target", "a snapshot in memory, to look at in the mount"),
    ),
    "sweep": (
        ("livedump sweep", "save what is not written; the next step is finish"),
        ("livedump sweep --device vm1", "of the host vm1"),
    ),
    "finish": (
        ("livedump finish", "wait for the seal, and say the verdict"),
        ("livedump finish --timeout 60", "for a minute at the most; the dump goes on"),
    ),
    "release": (
        ("livedump release", "end the dump; the machine runs at full speed"),
        ("livedump release --device 2718", "of the host with this pid"),
    ),
    "hold": (
        ("livedump hold --device vm1", "stop the machine; the next steps are arm and go"),
        ("livedump hold --deadline 500ms", "it goes by itself after so long"),
    ),
    "arm": (
        ("livedump arm --device vm1", "the snapshot of a machine that is held"),
        ("livedump arm --id 0123456789abcdef0123456789abcdef", "of this dump and no other"),
    ),
    "go": (
        ("livedump go --device vm1", "let it run, when all machines are armed"),
        ("livedump go --id 0123456789abcdef0123456789abcdef", "of this dump and no other"),
    ),
    "status": (
        ("livedump status", "what the only host's dump is doing"),
        ("livedump status --device vm1 --json", "of the host vm1, for programs"),
    ),
    "watch": (
        ("livedump watch", "the page map of the only host's dump, until q"),
        ("livedump watch --every 2 vm1", "of the host vm1, over a slow line"),
    ),
    "info": (
        ("livedump info /dev/loop0", "what a dump says of itself"),
        ("livedump info --json /backup/vm1#latest", "the newest of a store, for programs"),
    ),
    "verify": (
        ("livedump verify vm.elf", "read all of it, and compare each checksum"),
        ("livedump verify --repair /backup/vm1", "a whole store, damaged chunks set aside"),
    ),
    "mount": (
        ("livedump mount vm.kdump /mnt", "vmcore, mem.raw, mem.lime, kcore, as files"),
        ("livedump mount /backup/vm1#latest /mnt", "the newest dump of a store"),
    ),
    "convert": (
        ("livedump convert --format kdump vm.elf vm.kdump", "a dump in another format"),
        ("livedump convert --format lime /dev/loop0 -", "to a pipe, for volatility3"),
    ),
    "linux": (
        ("livedump linux vm1.elf", "its processes, and the last ten lines of its log"),
        ("livedump linux --kernel-threads --log 100 vm1.elf", "more of both"),
        ("livedump linux --json vm1.elf", "for programs"),
    ),
    "compare": (
        ("livedump compare yesterday.elf today.elf", "the ranges that differ"),
        ("livedump compare --ranges 0 a.elf b.elf", "only how many pages do"),
    ),
    "report": (
        ("livedump report vm1.elf -o vm1.html", "a page with the map, the stalls, the registers"),
        (
            "livedump report --against yesterday.elf today.elf -o today.html",
            "and what has changed since",
        ),
        ("livedump report --device vm1 -o vm1.html", "of the host vm1, while it runs"),
    ),
    "list": (
        ("livedump list", "the hosts that run here, and what each does"),
        ("livedump list /backup/vm1", "the dumps of a store"),
    ),
    "forget": (
        ("livedump forget --keep-daily 7 --keep-weekly 4 /backup/vm1", "all others go"),
        ("livedump forget --dry-run /backup/vm1 latest", "only say what would go"),
    ),
    "gc": (
        ("livedump gc /backup/vm1", "remove the bytes that no dump needs"),
        ("livedump gc --dry-run /backup/vm1", "only say what would go"),
    ),
    "doctor": (
        ("livedump doctor", "what is missing here, and what mends it"),
        ("livedump doctor --for qemu --json", "for guests of QEMU, for programs"),
    ),
    "completion": (
        ('eval "$(livedump completion bash)"', "in this shell; or in ~/.bashrc"),
        (
            "livedump completion fish > ~/.config/fish/completions/livedump.fish",
            "for each fish of this user",
        ),
    ),
    "fleet": (
        ("livedump fleet dump --barrier --to store:/backup/fleet", "all members at one instant"),
        ("livedump fleet list /backup/fleet", "the fleet dumps that there are"),
    ),
    "fleet scheduler": (
        ("livedump fleet scheduler", "on port 8786, with TLS"),
        ("livedump fleet scheduler --host 10.0.0.1 --port 0", "only there, on a free port"),
    ),
    "fleet worker": (
        ("livedump fleet worker 10.0.0.1:8786", "beside all hosts of this user"),
        ("livedump fleet worker --host vm1 10.0.0.1:8786", "beside one host alone"),
    ),
    "fleet members": (
        ("livedump fleet members", "of the cluster that LIVEDUMP_FLEET names"),
        ("livedump fleet members --scheduler 10.0.0.1:8786 --json", "for programs"),
    ),
    "fleet dump": (
        ("livedump fleet dump --to store:/backup/fleet", "by clock"),
        (
            "livedump fleet dump --barrier --deadline 0.5 --to /backup/fleet",
            "one instant for all; none stands longer than half a second",
        ),
    ),
    "fleet list": (
        ("livedump fleet list /backup/fleet", "id, instant, verdict and members of each"),
        ("livedump fleet list --json /backup/fleet", "for programs"),
    ),
    "fleet show": (
        ("livedump fleet show /backup/fleet/one.fleet.json", "what it is worth"),
        ("livedump fleet show --verify /backup/fleet/one.fleet.json", "and the dumps are there"),
    ),
    "fleet map": (
        ("livedump fleet map tasks /backup/fleet/one.fleet.json", "the tasks of all guests"),
        (
            "livedump fleet map --parquet rows.parquet script.py /backup/fleet/one.fleet.json",
            "a script over all dumps, its rows as a file",
        ),
    ),
}  # fmt: skip
"""By the command's name: (what is typed, what it does)."""
