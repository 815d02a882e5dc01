# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder with a fleet's TLS credentials: one key and one certificate, for scheduler, workers
and clients. With them one may run anything on the workers, as their user."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from livedumpfs.errors import HostError, TargetError, UsageError, os_cause

if TYPE_CHECKING:
    from distributed import Security

VARIABLE: Final = "LIVEDUMP_FLEET_TLS"
CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
_SECURE: Final = ("tls://", "inproc://")


def credentials_folder(given: str | None) -> str:
    """The folder that is meant."""
    usual = "~/.config/livedumpfs/fleet"
    return os.path.abspath(os.path.expanduser(given or os.environ.get(VARIABLE) or usual))


def make_credentials(folder: str) -> bool:
    """Make temporary credentials there, for a year, unless there are some. Whether they were made.
    TargetError; ImportError: the package cryptography is missing."""
    if os.path.lexists(os.path.join(folder, KEY)):
        return False
    from distributed import Security

    if find_spec("cryptography") is None:  # Dask's own sentence would name another way to get it
        raise ModuleNotFoundError("no cryptography", name="cryptography")
    made = Security.temporary()
    texts = {CA: made.tls_ca_file, CERTIFICATE: made.tls_client_cert, KEY: made.tls_client_key}
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name, text in texts.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(os.path.join(folder, name), flags, 0o600), "w") as file:
                file.write(text)
    except OSError as error:
        code = error.errno or 0
        raise TargetError(
            f"cannot write credentials into {folder}: {os_cause(code)}", errno=code
        ) from error
    return True


def load_credentials(folder: str) -> Security:
    """HostError: a file is missing, or may not be read."""
    from distributed import Security

    ca, certificate, key = (os.path.join(folder, name) for name in (CA, CERTIFICATE, KEY))
    for path in (ca, certificate, key):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            code = error.errno or 0
            raise HostError(
                f"cannot read {path}: {os_cause(code)}",
                errno=code,
                hint="copy the folder that the scheduler printed, name it with <tls>, or ask for "
                "<insecure>",
            ) from error
    return Security(
        require_encryption=True, tls_ca_file=ca,
        tls_client_cert=certificate, tls_client_key=key,
        tls_scheduler_cert=certificate, tls_scheduler_key=key,
        tls_worker_cert=certificate, tls_worker_key=key,
    )  # fmt: skip


def security_for(given: str | None, *, insecure: bool) -> Security | None:
    """The credentials of the folder that is meant; None with `insecure`."""
    return None if insecure else load_credentials(credentials_folder(given))


def full_address(address: str, *, insecure: bool) -> str:
    """With a scheme: tls:// unless `insecure`. UsageError: it is one without encryption, and that
    was not asked for."""
    if "://" not in address:
        return f"{'tcp' if insecure else 'tls'}://{address}"
    if not address.startswith(_SECURE) and not insecure:
        raise UsageError(
            f"{address} is not encrypted: anyone on the network may run anything on the workers",
            hint="use a tls:// address, or ask for <insecure>",
        )
    return address
