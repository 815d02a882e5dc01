# SPDX-License-Identifier: GPL-2.0-or-later
"""After a step in the wrong order: the command that comes next."""

from __future__ import annotations

import re
from typing import Final

_BY_STATE: Final = {
    "UNDEFINED": "`livedump init TARGET` comes first",
    "UNINIT": "`livedump init TARGET` comes first",
    "INIT": "the next step is `livedump start`",
    "START": "the next step is `livedump sweep`; `livedump release` ends it",
    "SWEEP": "`livedump finish` waits for its end; `livedump release` breaks it off",
    "FINISH": "`livedump release` ends it",
}
_STATE: Final = re.compile(r"(?:is not possible|dump already,) in state (\w+)")
_BY_WORDS: Final = {
    "HOLD comes first": "`livedump hold`",
    "ARM comes first": "`livedump arm`",
    "no sweep is under way": "`livedump status` says what is",
}


def next_command(message: str) -> str:
    """What to type after a StateError with this message; "": that depends on more."""
    found = _STATE.search(message)
    if found:
        return _BY_STATE.get(found[1], "")
    return next((hint for words, hint in _BY_WORDS.items() if words in message), "")
