# SPDX-License-Identifier: GPL-2.0-or-later
"""Other programs that use QEMU's migration beside an attached host: the guest runs on, and no dump
is taken for what it is not."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import wait_for

from livedumpfs.dump import LiveDump
from livedumpfs.errors import LivedumpError, MachineError
from livedumpfs.machines.attach import AttachedMachine, snapshot_job
from livedumpfs.machines.attach.migration_end import BACKGROUND
from livedumpfs.machines.attach.migration_settings import MigrationSettings
from livedumpfs.machines.attach.snapshot_job import SnapshotJob
from livedumpfs.machines.attach.turn import take_turn
from tests.qemu.attached_hosts import dump_once, gone, host_in_the_middle
from tests.qemu.running_guests import RunningGuest, firmware_words, running

OFF: dict[str, object] = {"capabilities": [{"capability": "background-snapshot", "state": False}]}
DEADLINE_S = 60.0


@pytest.fixture
def guest(firmware: Path, tmp_path: Path) -> Iterator[RunningGuest]:
    with running(tmp_path, firmware_words(firmware)) as found:
        found.boot()
        yield found


def just_before_migrate(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Another program is faster once."""
    prepare = SnapshotJob._prepare
    acted: list[bool] = []

    def prepared(self: SnapshotJob, theirs: Any) -> None:
        prepare(self, theirs)
        if not acted:
            acted.append(True)
            act()

    monkeypatch.setattr(SnapshotJob, "_prepare", prepared)


def expect_refused(live: LiveDump) -> MachineError:
    with pytest.raises(LivedumpError) as found:
        live.start()
    assert isinstance(found.value, MachineError) and found.value.errno == errno.EBUSY, found.value
    return found.value


def test_the_capability_is_turned_off(guest: RunningGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU then migrates in its usual way, at whose end the guest stands."""
    before = guest.settings()
    just_before_migrate(monkeypatch, lambda: guest.other.execute("migrate-set-capabilities", OFF))
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        assert "background-snapshot off" in expect_refused(live).message
        live.release()
        guest.goes_on()
        assert guest.settings() == before
        live.init(None)
        live.start()
        live.release()
    guest.goes_on()
    assert guest.settings() == before


def test_another_program_has_migrated_the_guest_away(
    guest: RunningGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs elsewhere now: it must not run here, too."""
    prepare = SnapshotJob._prepare

    def prepared(self: SnapshotJob, theirs: Any) -> None:
        guest.other.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        guest.other.execute("migrate", {"uri": "exec:cat > /dev/null"})
        prepare(self, theirs)

    monkeypatch.setattr(SnapshotJob, "_prepare", prepared)
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        expect_refused(live)
        live.release()
        wait_for(lambda: guest.migration() == "completed", guest.migration)
    assert guest.other.status() == "postmigrate"


def migrates_away(guest: RunningGuest) -> threading.Thread:
    """Another program, which waits for the end of our snapshot."""

    def run() -> None:
        wait_for(lambda: guest.migration() == "active", guest.migration)
        wait_for(lambda: guest.migration() == "completed", guest.migration)
        guest.other.execute("migrate-set-capabilities", OFF)
        guest.other.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        guest.other.execute("migrate", {"uri": "exec:cat > /dev/null"})

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def expect_away(guest: RunningGuest) -> None:
    """And it stays so, as it runs elsewhere."""
    wait_for(lambda: guest.other.status() == "postmigrate", guest.other.status)
    time.sleep(1.0)  # more than a lifeline waits between two tries
    assert guest.other.status() == "postmigrate"


def test_another_program_migrates_the_guest_away_right_after(guest: RunningGuest) -> None:
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        other = migrates_away(guest)
        with contextlib.suppress(MachineError):  # its migration may be there before our last look
            live.start()
        live.release()
        other.join(DEADLINE_S)
        expect_away(guest)
    expect_away(guest)


def test_another_program_migrates_the_guest_of_a_killed_host_away(guest: RunningGuest) -> None:
    with host_in_the_middle(guest, DEADLINE_S) as (host, lifeline):
        other = migrates_away(guest)
        host.kill()
        host.wait()
        wait_for(lambda: gone(lifeline))
        other.join(DEADLINE_S)
    expect_away(guest)


def test_a_host_lives_on_when_settings_come_back_late(
    guest: RunningGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, give_back = guest.settings(), MigrationSettings.give_back
    tries: list[bool] = []

    def late(self: MigrationSettings) -> bool:
        tries.append(len(tries) > 1 and give_back(self))
        return tries[-1]

    monkeypatch.setattr(MigrationSettings, "give_back", late)
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        live.start()
        live.release()
        wait_for(lambda: guest.settings() == before, guest.settings)
        assert tries == [False, False, True]
        assert not machine.ended()
        wait_for(lambda: _starts(live), live.state)
    guest.goes_on()
    assert guest.settings() == before


def _starts(live: LiveDump) -> bool:
    """Refused as long as the last snapshot has not quite ended."""
    live.init(None)
    try:
        live.start()
    except MachineError as error:
        assert error.errno == errno.EBUSY, error
        return False
    finally:
        live.release()
    return True


def test_a_paused_guest_whose_snapshot_is_given_up_at_once(guest: RunningGuest) -> None:
    """QEMU before 8.2 lets it run then, too."""
    guest.other.execute("stop")
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        migrate = SnapshotJob._migrate

        def given_up(self: SnapshotJob) -> None:
            migrate(self)
            self.give_up()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SnapshotJob, "_migrate", given_up)
            with pytest.raises(LivedumpError):
                live.start()
        live.release()
        wait_for(lambda: guest.migration() == "completed", guest.migration)
        wait_for(lambda: not guest.settings()["on"], guest.settings)
        wait_for(lambda: guest.other.status() == "paused", guest.other.status)
    assert guest.other.status() == "paused"
    guest.other.execute("cont")
    guest.goes_on()


def test_the_guest_is_paused_by_another_one(
    guest: RunningGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    just_before_migrate(monkeypatch, lambda: guest.other.execute("stop"))
    with AttachedMachine(guest.socket) as machine:
        live = LiveDump(machine)
        live.init(None)
        expect_refused(live)
        live.release()
        assert guest.other.status() == "paused"
        guest.other.execute("cont")
    guest.goes_on()


def test_settings_of_another_program_stay(
    guest: RunningGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A capability that was on, and a bandwidth that is set during the snapshot."""
    on: dict[str, object] = {"capabilities": [{"capability": BACKGROUND, "state": True}]}
    guest.other.execute("migrate-set-capabilities", on)
    just_before_migrate(
        monkeypatch,
        lambda: guest.other.execute("migrate-set-parameters", {"max-bandwidth": 777 << 20}),
    )
    with AttachedMachine(guest.socket) as machine:
        dump_once(machine)
    assert guest.settings()["max-bandwidth"] == 777 << 20
    assert guest.settings()["on"] == [BACKGROUND]


def test_one_of_livedumpfs_at_a_time(guest: RunningGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[MachineError] = []
    pid = guest.process.pid

    def second() -> None:
        with pytest.raises(MachineError) as found:
            take_turn(pid, guest.socket).close()
        taken.append(found.value)

    just_before_migrate(monkeypatch, second)
    with AttachedMachine(guest.socket) as machine:
        dump_once(machine)
        machine.close()
    assert [one.errno for one in taken] == [errno.EBUSY]
    take_turn(pid, guest.socket).close()


def test_settings_that_cannot_be_given_back_are_the_lifelines(
    guest: RunningGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = guest.settings()
    monkeypatch.setattr(MigrationSettings, "give_back", lambda self: False)
    monkeypatch.setattr(snapshot_job, "SHORT_S", 0.5)  # it is not over in any time
    with AttachedMachine(guest.socket) as machine:
        dump_once(machine)
        machine.close()
    wait_for(lambda: guest.settings() == before, guest.settings)
    guest.goes_on()


def test_nothing_is_imported_from_the_callers_directory(
    guest: RunningGuest, tmp_path: Path
) -> None:
    place = tmp_path / "callers"
    place.mkdir()
    (place / "json.py").write_text("raise SystemExit(77)\n")
    command = [sys.executable, "-P", "-m", "livedumpfs.cli", "dump", "--attach", guest.socket]
    done = subprocess.run(
        [*command, str(place / "target")],
        cwd=place, capture_output=True, text=True, timeout=DEADLINE_S * 5, check=False,
    )  # fmt: skip
    with contextlib.suppress(FileNotFoundError):
        (place / "target").unlink()
    assert done.returncode == 0, done
