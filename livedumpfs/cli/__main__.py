# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m livedumpfs.cli`; scripts/livedump runs it."""

from __future__ import annotations

import sys

from livedumpfs.cli.candidates import COMMAND, candidates
from livedumpfs.cli.outcome import complain, end_in_order, exit_code, interrupted, sentence
from livedumpfs.cli.output import keep_descriptors, say


def offer(kind: str = "", word: str = "") -> int:
    """Answer a shell that completes a word: a line for each candidate."""
    for one in candidates(kind, word):
        say(one)
    return 0


def run() -> int:
    """Run the command. The import of the command line comes late: it may fail or be interrupted,
    and both must end with a sentence."""
    keep_descriptors()
    try:
        end_in_order()
        if sys.argv[1:2] == [COMMAND]:
            return offer(*sys.argv[2:4])
        from livedumpfs.cli.main import main

        return main()
    except ImportError as error:
        complain(sentence(error))
        return exit_code(error)
    except KeyboardInterrupt as error:
        complain(interrupted(error))
        return exit_code(error)


sys.exit(run())
