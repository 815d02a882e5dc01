# SPDX-License-Identifier: GPL-2.0-or-later
"""Chunks: how they are named and compressed, as casync does it."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import threading
import zlib
from collections.abc import Callable
from typing import Final, Literal, get_args

import zstandard

from livedumpfs.errors import InvalidDump

Digest = Literal["sha512_256", "sha256"]
"""What names a chunk: the hash of its bytes, not compressed. casync reads and writes both."""
DIGESTS: Final[tuple[Digest, ...]] = get_args(Digest)
DIGEST: Final[Digest] = "sha256"
"""Of a new store: half the work of the other, with the processor's own instructions."""
ID_SIZE: Final = 32
"""Bytes of a chunk's id, which is the hash."""
CHUNK_SIZES: Final = (64 << 10, 1 << 20)
"""Bytes, the least and the most, both inclusive; a power of two."""
CHUNK_SIZE: Final = 64 << 10
"""The default."""
CHUNK_MOST: Final = 128 << 20
"""Most bytes of a chunk of a store that another program wrote: what casync itself takes."""
LEVEL: Final = 1
"""Of zstd, by default."""

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_XZ: Final = b"\xfd7zXZ\x00"
_GZIP: Final = b"\x1f\x8b"
_WINDOW: Final = 8 << 20
"""Bytes that any compressor of chunks may want, also for small ones."""
_XZ_MEMORY: Final = 256 << 20
"""Bytes that xz may take: its highest level takes a quarter of that."""
_local: Final = threading.local()  # zstd's contexts serve one thread at a time


def chunk_id(data: bytes | bytearray | memoryview, digest: Digest = DIGEST) -> bytes:
    """The hash of a chunk's bytes, ID_SIZE bytes. Large chunks are hashed without the interpreter's
    lock."""
    return hashlib.new(digest, data).digest()


def chunk_name(identity: bytes) -> str:
    """The chunk's file, below the folder of chunks: "abcd/abcd...cacnk"."""
    text = identity.hex()
    return f"{text[:4]}/{text}.cacnk"


def name_id(name: str) -> bytes | None:
    """The id of the chunk in the file with that name ("abcd...cacnk", without folder); None: it is
    no chunk."""
    text, dot, kind = name.partition(".")
    if not dot or kind != "cacnk" or len(text) != 2 * ID_SIZE:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def compress(data: bytes | bytearray | memoryview, level: int = LEVEL) -> bytes:
    """One frame of zstd. Any thread may call it."""
    held: zstandard.ZstdCompressor | None = getattr(_local, f"level{level}", None)
    if held is None:
        held = zstandard.ZstdCompressor(level=level)
        setattr(_local, f"level{level}", held)
    return held.compress(data)


def decompress(stored: bytes, most: int = CHUNK_MOST) -> bytes:
    """A chunk's bytes, at most `most`; compressed with zstd, xz or gzip, which casync writes.
    InvalidDump: it is none of these, is damaged or larger."""
    try:
        data = _decompress(stored, most)
    except (zstandard.ZstdError, lzma.LZMAError, zlib.error, OSError, EOFError) as error:
        raise InvalidDump(f"it cannot be decompressed: {error}") from error
    if len(data) > most:
        raise InvalidDump(f"it has more than the {most} bytes that its index allows")
    return data


def _decompress(stored: bytes, most: int) -> bytes:
    if stored.startswith(_ZSTD):
        said = zstandard.frame_content_size(stored)
        if 0 < said <= most:
            return _decompressor(most).decompress(stored)
        return _at_most(_decompressor(most).stream_reader(stored).read, most)
    if stored.startswith(_XZ):
        xz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        return xz.decompress(stored, max_length=most + 1)
    if stored.startswith(_GZIP):
        with gzip.GzipFile(fileobj=io.BytesIO(stored)) as file:
            return _at_most(file.read, most)
    raise InvalidDump("it is compressed with neither zstd, xz nor gzip")


def _decompressor(most: int) -> zstandard.ZstdDecompressor:
    """For chunks of at most so many bytes. What a stream wants as its window is allocated."""
    window = max(_WINDOW, 1 << (most - 1).bit_length())
    held: zstandard.ZstdDecompressor | None = getattr(_local, f"window{window}", None)
    if held is None:
        held = zstandard.ZstdDecompressor(max_window_size=window)
        setattr(_local, f"window{window}", held)
    return held


def _at_most(read: Callable[[int], bytes], most: int) -> bytes:
    parts, left = [], most + 1
    while left > 0 and (part := read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def checked(data: bytes, identity: bytes, digest: Digest) -> bytes:
    """`data`. InvalidDump: it is not the chunk with that id."""
    if chunk_id(data, digest) != identity:
        raise InvalidDump("its bytes do not have the hash that names it")
    return data
