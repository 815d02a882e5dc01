# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump, or the dump of a running host, as one HTML page that needs no network and no script."""

from livedumpfs.html_report.changes import Changes, changes
from livedumpfs.html_report.living_core import living_core
from livedumpfs.html_report.of_dump import of_dump, of_filtered
from livedumpfs.html_report.of_host import HostSaid, of_host
from livedumpfs.html_report.page import render
from livedumpfs.html_report.subject import Subject
from livedumpfs.html_report.task_list import LinuxMemory, TaskList, task_list

__all__ = [
    "Changes",
    "HostSaid",
    "LinuxMemory",
    "Subject",
    "TaskList",
    "changes",
    "living_core",
    "of_dump",
    "of_filtered",
    "of_host",
    "render",
    "task_list",
]
