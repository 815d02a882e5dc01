# SPDX-License-Identifier: GPL-2.0-or-later
"""A host without any right of root's: a user's own, and the root of a rootless container.

Rights are only asked for where the job needs them; the one that is missing is named.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from livedumpfs.control.caller import Caller
from livedumpfs.control.caller_target import open_for
from livedumpfs.control.settings_files import Settings
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import TargetError
from livedumpfs.rights import opener
from livedumpfs.rights.folder import Refused

TOP = Path(__file__).resolve().parents[2]
DEADLINE_S = 150
USER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")

CYCLE = r"""
set -eu
cd "$1"; livedump=$2; host=
finish() { [ -z "$host" ] || kill "$host" 2>/dev/null || true; wait; }
trap finish EXIT
wait_for() { for _ in $(seq 300); do [ -e "$1" ] && return; kill -0 "$2" || break; sleep 0.1; done
	cat log; echo "no $1"; exit 4; }
mkdir mount finished
"$livedump" host --ram 16M --mount mount >log 2>&1 & host=$!
wait_for mount/livedump "$host"
for format in elf raw kdump; do
	"$livedump" dump "d.$format" --format $format 2>&1
	"$livedump" verify "d.$format" >/dev/null 2>&1
done
"$livedump" mount d.elf finished >/dev/null 2>&1 & seen=$!
wait_for finished/snapshot/vmcore "$seen"
cmp finished/snapshot/mem.raw d.raw || [ $? = 1 ] # of another instant
kill -INT $seen; wait $seen
"$livedump" start --no-target 2>&1; "$livedump" release 2>&1
kill -INT "$host"; wait "$host"; host=
rmdir mount finished
rmdir "/tmp/livedumpfs-$(id -u)" 2>/dev/null || true # its entry was there
echo all done as $(id -u)
"""

# So that a user can run the Python that tests run on, wherever it lies, and may mount.
OPEN = r"""
set -eu
open() { # $1: a folder that others may not enter; $2: what of it they need
	kept=$(mktemp -d); mount --bind "$1" "$kept"; mount -t tmpfs -o mode=755 none "$1"
	mkdir -p "$1/$2"; mount --bind "$kept/$2" "$1/$2"
}
[ -z "$1" ] || open "$1" "$2"
mknod -m 666 "$3/fuse" c 10 229; mount --bind "$3/fuse" /dev/fuse
shift 3
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all "$@"
"""


def closed_folder(path: Path) -> tuple[str, str]:
    """The first folder on the way to `path` that others may not enter, and the rest; or nothing."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & 0o001:
            return str(folder), str(path.relative_to(folder))
    return "", ""


def run(*command: str | Path, folder: Path) -> str:
    environment = {
        **os.environ, "LIVEDUMP_PYTHON": sys.executable, "PYTHONPATH": str(TOP),
        "HOME": str(folder), "LIVEDUMP_DEVICE": str(folder / "mount" / "livedump"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    environment.pop("XDG_RUNTIME_DIR", None)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(open_folder: Path) -> Iterator[Path]:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("the mount needs /dev/fuse")
    place = open_folder / "work"
    place.mkdir()
    yield place
    shutil.rmtree(place)


def unshare(*options: str) -> list[str | Path]:
    command = ["unshare", *options]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"no {' '.join(command)} here")
    return list(command)


def test_the_root_of_a_rootless_container(folder: Path) -> None:
    """One id, and setgroups is denied, also with the groups that the process has."""
    command = unshare("-Urm")
    out = run(*command, "bash", "-c", CYCLE, "-", folder, TOP / "scripts/livedump", folder=folder)
    assert out.endswith("all done as 0\n")
    assert out.count("consistent") == 3


@needs_root
def test_a_user_without_rights(folder: Path) -> None:
    os.chown(folder, USER, USER)
    closed, rest = closed_folder(Path(sys.base_prefix))
    out = run(
        *unshare("-m"), "bash", "-c", OPEN, "-", closed, rest, folder.parent,
        "bash", "-c", CYCLE, "-", folder, TOP / "scripts/livedump", folder=folder,
    )  # fmt: skip
    assert out.endswith(f"all done as {USER}\n")
    assert out.count("consistent") == 3
    assert {one.stat().st_uid for one in folder.iterdir()} == {USER}


# ------------------------------------------------------------------ the opener alone


def outcome(code: str, *unshared: str, bounding: str = "") -> str:
    """What Python code printed that can call become() as `become`, on its own process."""
    program = (
        "import os, sys\nfrom livedumpfs import opener\n"
        "def tell(change):\n"
        "    own = opener.read_task('self')\n"
        "    try: opener.take_ids(own._replace(**change), own); print('done', os.getresuid())\n"
        "    except OSError as error: print(error.errno, error.strerror)\n"
    ) + code
    command = [*unshared] + (["setpriv", f"--bounding-set={bounding}"] if bounding else [])
    done = subprocess.run(
        [*command, sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
        check=False, env={**os.environ, "PYTHONPATH": str(TOP)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_so_already_needs_no_right() -> None:
    unshare("-Ur")
    assert outcome("tell({})", "unshare", "-Ur").startswith("done (0, 0, 0)")


def test_groups_that_cannot_be_taken_are_named() -> None:
    unshare("-Ur")
    said = outcome("tell({'groups': [0, 5]})", "unshare", "-Ur")
    assert said == (
        f"{errno.EPERM} the host cannot take the caller's supplementary groups (denied in the user "
        "namespace of the host): run it as the caller's user, or with CAP_SETGID\n"
    )


@needs_root
def test_ids_that_cannot_be_taken_are_named() -> None:
    code = "tell({'gid': 7}); tell({'uid': 7}); tell({})"
    lines = outcome(code, bounding="-setuid,-setgid").splitlines()
    assert lines[0].endswith("act for group 7: run it as the caller's user, or with CAP_SETGID")
    assert lines[1].endswith("act for user 7: run it as the caller's user, or with CAP_SETUID")
    assert lines[2] == "done (0, 0, 0)"


@needs_root
def test_a_host_that_is_not_root_acts_for_no_other_user() -> None:
    code = (
        "opener.read_task('self')  # loads what its user may not read\n"
        "os.setresgid(7, 7, 7); os.setresuid(7, 7, 7)\n"
        "tell({}); tell({'groups': [3]}); tell({'uid': 8})"
    )
    lines = outcome(code).splitlines()
    assert lines[:2] == ["done (7, 7, 7)"] * 2
    assert lines[2].endswith("act for user 8: run it as the caller's user, or with CAP_SETUID")


@needs_root
def test_a_host_that_is_not_root_lends_no_right() -> None:
    """What it has itself, as by AmbientCapabilities= of a service, is not its caller's."""
    code = """
import contextlib, signal, subprocess
OVERRIDE, WITH = 1 << 1, ["setpriv", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
opener.read_task("self")  # loads what its user may not read
for start in (["env"], [*WITH, "--reuid=7", "--regid=7", "--clear-groups"]):
    plain = {} if "--reuid=7" in start else {"user": 7, "group": 7, "extra_groups": []}
    caller = subprocess.Popen([*start, "sh", "-c", "echo; exec sleep 600"],
                              stdout=subprocess.PIPE, **plain)
    caller.stdout.readline()
    child = os.fork()
    if not child:
        opener.ctypes.CDLL(None).prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
        os.setgroups([]); os.setresgid(7, 7, 7); os.setresuid(7, 7, 7)
        opener.set_capabilities(OVERRIDE)
        opener.become(caller.pid, 7, 7)
        print(opener.read_task("self").capabilities, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    caller.kill()
    caller.wait()
"""
    assert outcome(code).split() == ["0", "2"]


@needs_root
def test_the_right_that_is_missing_comes_out_of_the_helper() -> None:
    code = (
        "from livedumpfs.rights.helper import Helper\n"
        "try: Helper(%d, 7, 7)\nexcept OSError as error: print(error.errno, error.strerror)"
    )
    with subprocess.Popen(["sleep", "600"], user=7, group=7, extra_groups=[]) as caller:
        try:
            said = outcome(code % caller.pid, bounding="-setuid,-setgid")
        finally:
            caller.kill()
    assert said.startswith(f"{errno.EPERM} the host cannot ") and said.endswith("CAP_SETGID\n")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("the host cannot act for user 7: run it as that", " (the host cannot act for user 7: run"),
        (os.strerror(errno.EPERM), ""),  # of the file: the host has all that it needs
    ],
)
def test_the_sentence_reaches_who_asked(
    monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        answer = opener.describe(PermissionError(errno.EPERM, said))
        raise Refused(answer["errno"], answer["text"])

    monkeypatch.setattr("livedumpfs.control.caller_target.Helper", refuse)
    with pytest.raises(TargetError) as caught:
        open_for(Caller(7, 7, 1), Settings(DumpSettings(), output="/x"))
    assert str(caught.value).startswith(f"cannot open /x: Operation not permitted{told}")
    assert told or str(caught.value) == "cannot open /x: Operation not permitted"
