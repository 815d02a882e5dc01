# SPDX-License-Identifier: GPL-2.0-or-later
"""About: what a store says of itself in its object `livedumpfs.json`, written when it is made."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

import msgspec

from livedumpfs.errors import InvalidDump, UsageError
from livedumpfs.formats.typed import typed
from livedumpfs.stores.chunk import CHUNK_SIZE, CHUNK_SIZES, Digest
from livedumpfs.units import format_size

ABOUT: Final = "livedumpfs.json"
SEALED_ABOUT: Final = "livedumpfs.sealed"
"""Of an encrypted store: the same, sealed with its key, so that nothing of it can be changed."""
VERSION: Final = 1

StoreLayout = Literal["castr", "packs"]
"""A file for each chunk, as casync keeps them; or many chunks in an object, for object stores."""


class About(msgspec.Struct, kw_only=True, frozen=True):
    """Of one store; never changed after it was made."""

    version: Annotated[int, msgspec.Meta(ge=1)] = VERSION
    """Of the layout; readers refuse a higher one."""
    chunk_size: int = CHUNK_SIZE
    """Bytes of every chunk but the last of an image."""
    digest: Digest = "sha512_256"
    """What names the chunks; stores that do not say it are older than the other one."""
    layout: StoreLayout = "castr"
    encryption: str = ""
    """How chunks and indexes are encrypted; "": they are not."""

    def pack(self) -> bytes:
        """As JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def check_chunk_size(size: int) -> None:
    """UsageError: no store has chunks of that size."""
    least, most = CHUNK_SIZES
    if not least <= size <= most or size & (size - 1):
        raise UsageError(
            f"chunks of {format_size(size)} are not possible: a power of two from "
            f"{format_size(least)} to {format_size(most)} is"
        )


def check_granule(granule: int, chunk_size: int) -> None:
    """UsageError: the chunks of a store are no parts of granules of that size."""
    if granule % chunk_size:
        raise UsageError(
            f"granules of {format_size(granule)} do not go into a store with chunks of "
            f"{format_size(chunk_size)}",
            hint="a <granule> that is a multiple",
        )


def parse_about(data: bytes) -> About:
    """InvalidDump: it is none, or of a newer livedumpfs."""
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDump(f"its {ABOUT} is not JSON: {error}") from error
    about = typed(found, About, "description of the store")
    if about.version > VERSION:
        raise InvalidDump(f"it has version {about.version}: a newer livedumpfs is needed")
    if about.encryption and about.layout != "packs":
        raise InvalidDump(f"it says that it is encrypted, with the layout {about.layout}")
    try:
        check_chunk_size(about.chunk_size)
    except UsageError as error:
        raise InvalidDump(error.message) from error
    return about
