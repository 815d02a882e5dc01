# SPDX-License-Identifier: GPL-2.0-or-later
"""Seal: what a store keeps is encrypted and authenticated with the store's key.

AES-256-GCM of the library cryptography, with a random nonce of 96 bits before each text. What a
text is (the id of a chunk, the name of an object) is authenticated with it, so that one cannot take
another's place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from livedumpfs.errors import InvalidDump
from livedumpfs.stores.chunk import LEVEL, compress, decompress
from livedumpfs.stores.objects import Bytes, Listed, Objects

KEY_SIZE: Final = 32
_NONCE: Final = 12
_CHUNK: Final = b"chunk\0"
_OBJECT: Final = b"object\0"


class Seal:
    """With one key. Any thread may call."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)

    def close(self, data: Bytes, what: bytes) -> bytes:
        """Nonce, encrypted text, tag of 16 bytes."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, bytes(data), what)

    def open(self, sealed: bytes, what: bytes) -> bytes:
        """InvalidDump: it was changed, is something else, or was made with another key."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], what)
        except (InvalidTag, ValueError):
            raise InvalidDump(
                "it was changed, is in the place of another, or has another key"
            ) from None


class SealedCoder:
    """Chunks are compressed, then sealed. See Coder."""

    def __init__(self, seal: Seal, level: int = LEVEL) -> None:
        self._seal, self._level = seal, level

    def encode(self, identity: bytes, data: Bytes) -> bytes:
        """See Coder."""
        return self._seal.close(compress(data, self._level), _CHUNK + identity)

    def decode(self, identity: bytes, stored: bytes, most: int) -> bytes:
        """See Coder."""
        return decompress(self._seal.open(stored, _CHUNK + identity), most)


class SealedObjects:
    """Objects that are sealed, each with its name. See Objects."""

    def __init__(self, objects: Objects, seal: Seal) -> None:
        self._objects, self._seal = objects, seal

    @property
    def url(self) -> str:
        """See Objects."""
        return self._objects.url

    def get(self, name: str) -> bytes:
        """See Objects. InvalidDump: it was changed, or is another."""
        return self._seal.open(self._objects.get(name), _OBJECT + name.encode())

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See Objects; the whole is read."""
        return self.get(name)[start : start + length]

    def put(self, name: str, data: Bytes) -> None:
        """See Objects."""
        self._objects.put(name, self._seal.close(data, _OBJECT + name.encode()))

    def has(self, name: str) -> bool:
        """See Objects."""
        return self._objects.has(name)

    def names(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """See Objects; sizes are those of what is kept."""
        return self._objects.names(prefix, deep=deep)

    def delete(self, names: Iterable[str]) -> None:
        """See Objects."""
        self._objects.delete(names)

    def withdraw(self, names: Iterable[str]) -> None:
        """See Objects."""
        self._objects.withdraw(names)

    def clean(self) -> int:
        """See Objects."""
        return self._objects.clean()

    def sync(self) -> None:
        """See Objects."""
        self._objects.sync()

    def lock(self, *, alone: bool, wait_s: float) -> AbstractContextManager[None]:
        """See Objects."""
        return self._objects.lock(alone=alone, wait_s=wait_s)

    def close(self) -> None:
        """See Objects."""
        self._objects.close()
