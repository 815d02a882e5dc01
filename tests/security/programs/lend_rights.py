# SPDX-License-Identifier: GPL-2.0-or-later
"""The rights of a caller when the host that acts for it is not root, and has rights of its own by
its service."""

from __future__ import annotations

import os
import subprocess

from livedumpfs.rights import opener

OVERRIDE, WITH = 1 << 1, ["setpriv", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
opener.read_task("self")  # loads what its user may not read
for start in (["env"], [*WITH, "--reuid=7", "--regid=7", "--clear-groups"]):
    plain = {} if "--reuid=7" in start else {"user": 7, "group": 7, "extra_groups": []}
    caller = subprocess.Popen(
        [*start, "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE, **plain
    )
    caller.stdout.readline()
    child = os.fork()
    if not child:
        opener.ctypes.CDLL(None).prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
        os.setgroups([])
        os.setresgid(7, 7, 7)
        os.setresuid(7, 7, 7)
        opener.set_capabilities(OVERRIDE)
        opener.become(caller.pid, 7, 7)
        print(opener.read_task("self").capabilities, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    caller.kill()
    caller.wait()
