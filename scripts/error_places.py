# SPDX-License-Identifier: GPL-2.0-or-later
"""What the messages of docs/troubleshooting.md cannot say of themselves: causes and cures by kind of
error, by part of the program, and of the system's words."""

from __future__ import annotations

from typing import Final, NamedTuple


class Kind(NamedTuple):
    """A class of errors, and those that come from it."""

    exit_code: int
    cause: str
    cure: str
    short: str
    """Of a message without a cure of its own."""


class Place(NamedTuple):
    """A part of the program."""

    title: str
    files: tuple[str, ...]
    """How the paths in the package begin."""
    cause: str
    cure: str


KINDS: Final = {
    "DamagedPage": Kind(3, "the bytes of a page are not those of its checksum", "[verify](cli.md#livedump-verify) names all of them; take the dump anew, or read with `--force` what is left", "take the dump anew"),
    "DamagedChunk": Kind(3, "a chunk of a store is missing or is not what its name says", "`livedump verify STORE` names all of them; a copy of the store may have it", "`livedump verify STORE`"),
    "InvalidDump": Kind(3, "the bytes are not a dump, of another version, damaged, or of a dump that was broken off", "is it the right path? `livedump info` says what is there, `livedump verify` what of it is right", "the right file, or another dump"),
    "InconsistentDump": Kind(3, "the dump is torn or incomplete; it says why", "remove the reason and dump anew; `livedump mount` shows what is there, in Python `check=False` takes it", "the reason in it"),
    "Broken": Kind(3, "the dump was taken, and a later step failed", "the reason is behind the colon; what is on the target says that it is incomplete", "the reason in it"),
    "StreamError": Kind(1, "what QEMU sends is no migration stream as this version knows it", "is this QEMU one of the [tested versions](qemu.md#attach)? START again; nothing is left in QEMU", "a [tested](qemu.md#attach) QEMU; START again"),
    "FilterError": Kind(1, "makedumpfile is missing or failed", "see its own words; a dump without `--exclude` needs no makedumpfile", "makedumpfile's own words"),
    "SchedulerGone": Kind(1, "the scheduler of the Dask cluster has ended", "start it anew; the fleet's hosts release their dumps by themselves", "start the scheduler anew"),
    "MissingPackage": Kind(1, "a Python package of an extra is not installed", "`pip install 'livedumpfs[EXTRA]'`", "install the extra"),
    "UsageError": Kind(2, "arguments, or arguments together, make no sense; nothing was changed", "`livedump COMMAND --help`, and the option's row in [the command line](cli.md)", "correct it; nothing was changed"),
    "StateError": Kind(1, "a step came in the wrong order, twice, or while another one is under way", "`livedump status` shows the state; `livedump release` always leads back to the start", "`livedump status`, then the step that is due, or `livedump release`"),
    "TargetError": Kind(1, "the target cannot be opened, checked, written or synced; the machine runs on", "room, rights and health of the target; then the same command again", "another target, or its reason removed"),
    "HostError": Kind(1, "no host runs, several run, or its mount does not answer", "`livedump list` shows the hosts; name one with `--device`", "`livedump list`; start the host anew"),
    "MachineError": Kind(1, "the machine cannot be built, stopped or write-protected; it runs on", "the system's words behind the colon; `livedump doctor`", "its reason removed; the machine runs on"),
    "LivedumpError": Kind(1, "none of the above", "see the message", "its reason removed"),
}  # fmt: skip
"""The first that a class comes from counts."""

SYSTEM: Final = {
    "Permission denied": ("this user may not read or write the object", "mode and owner of it and of the folders on the way; for block devices the group `disk`"),
    "Operation not permitted": ("a right is missing, or a security module or seccomp filter forbids it", "[what needs root](install.md#what-needs-root); `livedump doctor`"),
    "No such file or directory": ("there is no such path, or a folder on the way is missing", "the spelling, and the working directory of the caller"),
    "No space left on device": ("the file system or device is full", "`df`; the dump needs the memory that is in use, `kdump` less"),
    "Disk quota exceeded": ("this user's quota is full", "another target, or a larger quota"),
    "File too large": ("the file system or `ulimit -f` allows no such file", "another file system, format `kdump`, or a store"),
    "Read-only file system": ("the target's file system or device is read-only", "mount it for writing, or another target"),
    "Input/output error": ("the device failed, or a page was never saved", "the system's log (`dmesg`); for a snapshot `livedump status`"),
    "Device or resource busy": ("another dump, mount or program uses it", "`livedump list`, `lsof`; release the other dump first"),
    "Connection timed out": ("the other side, or the target, did not answer in time", "is it alive? a longer `--deadline`"),
    "Cannot allocate memory": ("no memory, or no more mappings", "a smaller `--pool`; vm.max_map_count, ulimit -v, the limit of the memory cgroup"),
    "Resource temporarily unavailable": ("no more threads, or it changed at that moment", "ulimit -u, pids.max; the same command again"),
    "Too many open files": ("the process has as many open files as it may", "a larger `ulimit -n`"),
    "Invalid argument": ("a value or a step that is not possible here", "`control/error` has the sentence behind it"),
    "Bad address": ("a system call wrote memory that is write-protected (backend `sigsegv`)", "[`arena.receiving`](arrays.md), or backend `uffd`"),
    "No data available": ("there is no dump yet whose memory could be read", "START first; `livedump status`"),
    "Stale file handle": ("the dump, or the base of an increment, is another one now", "INIT anew"),
    "No such device or address": ("nothing is at the other end: no reader of the pipe, no such device", "start the reader first"),
    "Broken pipe": ("the reader of the pipe has ended", "the reader's own message"),
    "No such process": ("the process has ended", "start it anew"),
    "Connection refused": ("nothing listens at that socket", "is the program still running?"),
    "Transport endpoint is not connected": ("the host behind the mount has died", "`fusermount -u -z DIR`; then start the host anew"),
    "Inappropriate ioctl for device": ("the file is no `livedump` file of a mount", "`livedump list` shows the mounts"),
    "Function not implemented": ("this kernel does not have the call", "`livedump doctor` says which Linux is needed"),
}  # fmt: skip

PLACES: Final = (
    Place("The command line", ("cli/", "answers.py", "kinds.py", "option.py"),
        "an option, an argument or a file of options is wrong, or two of them do not go together.",
        "`livedump COMMAND --help` has examples; a value in `/etc/livedump.toml` or "
        "`~/.config/livedump/config.toml` counts as if it were typed."),
    Place("Settings of a dump", ("settings.py", "control/settings_files.py", "compression.py", "huge.py", "units.py"),
        "a setting has a value that it cannot have, or one that does not fit the format.",
        "the ranges are in [settings of dumps](cli.md#settings-of-its-dumps)."),
    Place("Finding a host", ("hosts/", "client.py", "by_dump_id.py", "request.py", "proc.py"),
        "no host runs for this user, the name fits several, or its process has died.",
        "`livedump list`; then `--device` with a name, a pid or a mount."),
    Place("Mounts", ("mount/", "rights/", "closing.py"),
        "FUSE, the mount point, or what a caller may do there.",
        "`livedump doctor` looks at `/dev/fuse`, `fusermount` and libfuse; [security](security.md) "
        "says which user may do what."),
    Place("Steps of a dump", ("control/", "dump/", "thread.py", "pause.py", "writer_lock.py", "step_barrier.py", "pipe_thread.py", "page_map.py"),
        "INIT, START, SWEEP or RELEASE in the wrong order, by two clients at once, for a dump that "
        "is gone, or with a machine that does not stop.",
        "`livedump status` shows the state; [the order of the steps](control.md#order-of-the-steps)."),
    Place("Targets", ("targets/",),
        "the file, device or pipe to which the dump goes.",
        "kind, rights, content and room of the target; [files and their names]"
        "(cli.md#files-and-their-names)."),
    Place("Stores of dumps", ("stores/",),
        "a folder or bucket with many dumps: an index, a chunk, a key, a lock, or the server.",
        "`livedump verify STORE` reads all of it; [stores](store.md), [object stores](object-stores.md)."),
    Place("Reading dumps", ("dumpfile/", "formats/", "linux/", "headers.py"),
        "the file is no dump, a damaged one, one of another version, or lacks what was asked for.",
        "`livedump info FILE` and `livedump verify FILE`; [formats](formats.md) says what lies where."),
    Place("Reports", ("html_report/",),
        "the page of `livedump report`, or what is to be in it.",
        "`livedump info DUMP` and `livedump status`; [the command](cli.md#livedump-report)."),
    Place("Arrays and programs", ("core/", "named/", "errors.py", "__init__.py"),
        "an array, a name, a type or the arena of a program; or a group that a save cannot write.",
        "[arrays](arrays.md) says what an arena and a group can hold."),
    Place("Machines in process", ("machines/", "signal_event.py", "clocks.py"),
        "the program, kernel or disk for an emulated machine, or its memory.",
        "[the host's options](cli.md#livedump-host), [Linux in process](linux.md)."),
    Place("QEMU started under livedump", ("machines/qemu/", "machines/shim.py", "machines/kernels/"),
        "an option, a device or a version of QEMU with which a dump could be wrong.",
        "`livedump qemu --check -- COMMAND` lists every reason; [guests of QEMU](qemu.md)."),
    Place("QEMU that runs already", ("machines/attach/",),
        "the monitor, a device that stores past QEMU, a migration under way, or the stream.",
        "`livedump attach --check SOCKET` lists every reason; [attach](qemu.md#attach)."),
    Place("Fleets", ("fleet/",),
        "a member, the Dask cluster, or the manifest of a fleet dump.",
        "`livedump fleet members` and `livedump fleet show`; [fleets](fleet.md)."),
    Place("This computer", ("doctor/",),
        "a check of `livedump doctor` could not be made.",
        "what it names."),
)  # fmt: skip
"""A message belongs to the place with the longest beginning of its path."""
