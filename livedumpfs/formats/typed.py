# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dump says of itself has the types that it should have, or is refused."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from livedumpfs.errors import InvalidDump

Natural = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""So many bytes or pieces that two of them can be added."""
_Kind = TypeVar("_Kind")


def typed(value: object, kind: type[_Kind], what: str) -> _Kind:
    """`value`, of JSON types, as `kind`; members that a Struct does not have are for newer readers.
    InvalidDump: it is something else."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidDump(f"its meta data has no sensible {what}") from error
