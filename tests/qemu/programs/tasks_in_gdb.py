# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by gdb: the tasks that its kernel has in kcore; PID and name of each."""

import gdb

first = gdb.parse_and_eval("&init_task")
kind = first.type
link = next(one.bitpos // 8 for one in kind.target().fields() if one.name == "tasks")
at = first
while True:
    at = gdb.Value(int(at["tasks"]["next"]) - link).cast(kind)
    if int(at) == int(first):
        break
    print(int(at["pid"]), at["comm"].string())
