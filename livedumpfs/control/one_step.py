# SPDX-License-Identifier: GPL-2.0-or-later
"""OneStep: one step of a dump at a time, and what is told of one that fails."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from livedumpfs.dump import DumpEvent, Happened, LiveDump
from livedumpfs.errors import LivedumpError, StateError, UsageError, in_control


class OneStep:
    """Any thread may ask for a step; none waits for another one's."""

    def __init__(self, dump: LiveDump) -> None:
        """`dump`: its observers are told of a step that was allowed and asked for rightly, and
        could not be taken."""
        self._dump = dump
        self._step = threading.Lock()

    @contextmanager
    def __call__(self, doing: str) -> Iterator[None]:
        """Around a step, such as "INIT". StateError EBUSY: another one is under way."""
        if not self._step.acquire(blocking=False):
            raise StateError(f"{doing}: another step is under way", errno=errno.EBUSY)
        try:
            yield
        except (StateError, UsageError):
            raise  # the caller's own mistake
        except Exception as error:
            self._dump.tell(self._failed(doing, error))
            raise
        finally:
            self._step.release()

    def _failed(self, doing: str, error: Exception) -> DumpEvent:
        said = error.worded(in_control) if isinstance(error, LivedumpError) else str(error)
        number = error.errno if isinstance(error, OSError) else 0
        # The dump that there was before is not meant by an INIT that failed.
        dump_id = b"" if doing == "INIT" else self._dump.dump_id
        return DumpEvent(
            Happened.FAILED, dump_id, reason=said, step=doing, errno=number or errno.EIO
        )
