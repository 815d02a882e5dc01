# SPDX-License-Identifier: GPL-2.0-or-later
"""The key of an encrypted store: random, and kept in the store as the object `key`, an age file for
its recipients. Identities and lists of recipients are files as age's own programs take them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from livedumpfs.errors import InvalidDump, TargetError, UsageError, os_cause

if TYPE_CHECKING:
    from pyrage import Identity, Recipient

KEY: Final = "key"
ENCRYPTION: Final = "age+aes256gcm"
"""About.encryption of the stores that this module knows."""
IDENTITY_VARIABLE: Final = "LIVEDUMP_IDENTITY"
"""The variable that names the file with the identity."""
_FILE_MOST: Final = 1 << 20
_SSH: Final = ("ssh-ed25519 ", "ssh-rsa ")
_SECRETS: Final = ("AGE-SECRET-KEY-", "-----BEGIN")
"""How a private key begins, also one that is given in place of its file's name."""


def parse_recipients(words: Sequence[str]) -> list[Recipient]:
    """Each is a recipient ("age1...", "ssh-ed25519 ...") or a file with one a line. UsageError:
    one is neither, or a file has none."""
    found = []
    for word in words:
        _expect_no_secret(word, "what is given as a recipient")
        if word.startswith(("age1", *_SSH)):
            found.append(_recipient(word, word))
            continue
        lines = [line for line in _lines(word, "recipients") if not line.startswith("#")]
        if not lines:
            raise UsageError(f"{word} has no recipient in it")
        found += [_recipient(line, word) for line in lines]
    return found


def _recipient(text: str, where: str) -> Recipient:
    import pyrage

    if text.upper().startswith(_SECRETS):  # it must not be shown
        raise UsageError(
            f"{where} is an identity, not a recipient: `age-keygen -y` makes one of it"
        )
    kind: Any = pyrage.ssh if text.startswith(_SSH) else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except (pyrage.RecipientError, ValueError):
        raise UsageError(
            f"{where[:80]} is no recipient of age, and no file of recipients"
        ) from None


def read_identities(path: str | None) -> list[Identity]:
    """Of the file `path`, or of the one that the variable names. TargetError: it cannot be read;
    UsageError: there is none named, or none in it."""
    import pyrage

    named = path or os.environ.get(IDENTITY_VARIABLE)
    if not named:
        raise UsageError(
            "it is encrypted, and no identity is named",
            hint=f"an option, or {IDENTITY_VARIABLE} in the environment, names its file",
        )
    _expect_no_secret(named, f"what an option or {IDENTITY_VARIABLE} gives as the identity")
    lines = _lines(named, "the identity")
    if lines and lines[0].startswith("-----BEGIN"):
        try:
            return [pyrage.ssh.Identity.from_buffer("\n".join([*lines, ""]).encode())]
        except (pyrage.IdentityError, ValueError):
            raise UsageError(f"{named} is no SSH key that opens without a passphrase") from None
    found = []
    for line in lines:
        if not line.startswith("#"):
            try:
                found.append(pyrage.x25519.Identity.from_str(line))
            except (pyrage.IdentityError, ValueError):
                raise UsageError(f"{named} is no file of age identities") from None
    if not found:
        raise UsageError(f"{named} has no identity in it")
    return found


def _expect_no_secret(word: str, where: str) -> None:
    """UsageError, in which it is not shown."""
    if word.strip().upper().startswith(_SECRETS):
        raise UsageError(
            f"{where} is a private key itself, not the name of its file",
            hint="others may have seen it in the list of processes: make another",
        )


def _lines(path: str, what: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            text = file.read(_FILE_MOST).decode("utf-8", "replace")
    except OSError as error:
        code = error.errno or 0
        raise TargetError(f"cannot read {what} in {path}: {os_cause(code)}", errno=code) from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def wrap_key(key: bytes, recipients: Sequence[str]) -> bytes:
    """The age file with the key. UsageError: no such recipients."""
    import pyrage

    wrapped: bytes = pyrage.encrypt(key, parse_recipients(recipients))
    return wrapped


def unwrap_key(wrapped: bytes, identity: str | None, size: int) -> bytes:
    """The key of `size` bytes. UsageError, TargetError: see read_identities; InvalidDump: the
    identity does not open it, or it is damaged."""
    import pyrage

    identities = read_identities(identity)
    named = identity or os.environ.get(IDENTITY_VARIABLE)
    try:
        key: bytes = pyrage.decrypt(wrapped, identities)
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise InvalidDump(f"the identity in {named} does not open it") from None
        raise InvalidDump(f"its object {KEY} is damaged") from None
    if len(key) != size:
        raise InvalidDump(f"its object {KEY} is none of livedumpfs")
    return key


def expect_known(encryption: str) -> None:
    """InvalidDump: the store is encrypted in a way that is not known here."""
    if encryption not in ("", ENCRYPTION):
        raise InvalidDump(f"it is encrypted by {encryption!r}: a newer livedumpfs is needed")
