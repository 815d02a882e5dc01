# SPDX-License-Identifier: GPL-2.0-or-later
"""`--identity` and `--recipient`: the keys of encrypted stores and streams. Only names of files and
public keys are ever on a command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, Final

VARIABLE: Final = "LIVEDUMP_IDENTITY"
"""Names the file, where no option does: stores.store_key reads it."""
ONLY_ENCRYPTED: Final = "LIVEDUMP_ENCRYPTED"
"""The variable by which stores.store knows that other stores are refused: the option, when it is
typed, is for encrypted stores alone."""


class _Named(argparse.Action):
    """Puts the file's name where all that opens a store in this process finds it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        os.environ[VARIABLE] = str(values)
        namespace.only_encrypted = True


def add_identity(parser: argparse._ActionsContainer) -> None:
    """Add `--identity`, for the commands that open a store."""
    parser.add_argument(
        "--identity",
        action=_Named,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help=f"file of age with the identity that opens an encrypted store; default: {VARIABLE}",
    )


def add_recipients(parser: argparse._ActionsContainer) -> None:
    """Add `--recipient`, for what makes a store or a stream."""
    parser.add_argument(
        "--recipient",
        action="append",
        default=[],
        dest="recipients",
        metavar="KEY",
        help="encrypt the stream, or the store that this dump makes, for this public key of age, "
        "or for those in this file; may be given several times",
    )
