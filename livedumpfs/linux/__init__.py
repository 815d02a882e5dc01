# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux in a dump, by what the kernel itself has in its memory: no debug symbols are needed."""

from livedumpfs.linux.kernel import Kernel
from livedumpfs.linux.log import LogRecord, log_records
from livedumpfs.linux.tasks import LinuxTask, tasks

__all__ = ["Kernel", "LinuxTask", "LogRecord", "log_records", "tasks"]
