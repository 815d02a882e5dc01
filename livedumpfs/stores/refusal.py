# SPDX-License-Identifier: GPL-2.0-or-later
"""What obstore's errors mean, as one sentence that has no secret in it.

Their own text is never shown: it has the URL with all that is in it, and what the server answered,
which for a wrong signature has the access key.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from livedumpfs.errors import TargetError

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_CREDENTIALS: Final = "see docs/object-stores.md for the variables that name the credentials"
_ENDPOINT: Final = "check the network, and the endpoint where one is set (AWS_ENDPOINT_URL)"
_RETRIED: Final = "it was tried again until the deadline; the same command may work later"

# What is in obstore's text -> errno, cause, what to do. The first that is there counts.
_KNOWN: Final = (
    ("NoSuchBucket", errno.ENXIO, "there is no such bucket", "make the bucket first"),
    ("<Code>AllAccessDisabled", errno.EACCES, "the bucket is closed", ""),
    ("MissingAccessKeyId", errno.EACCES, "there are no credentials", _CREDENTIALS),
    ("MissingSecretAccessKey", errno.EACCES, "there are no credentials", _CREDENTIALS),
    ("MissingAccount", errno.EACCES, "no account is named", _CREDENTIALS),
    ("169.254.", errno.EACCES, "there are no credentials", _CREDENTIALS),
    ("InvalidCredentials", errno.EACCES, "there are no valid credentials", _CREDENTIALS),
    ("BadScheme", errno.EPROTONOSUPPORT, "the endpoint has no TLS", "AWS_ALLOW_HTTP=true"),
    ("kind: Timeout", errno.ETIMEDOUT, "the server does not answer in time", _RETRIED),
    ("TimedOut", errno.ETIMEDOUT, "the server does not answer in time", _RETRIED),
    ("dns error", errno.ENXIO, "the server's name is not known", _ENDPOINT),
    ("ConnectionRefused", errno.ECONNREFUSED, "no server listens there", _ENDPOINT),
    ("certificate", errno.EPROTO, "the server's certificate is not valid", _ENDPOINT),
    ("kind: Connect", errno.ENXIO, "the server cannot be reached", _ENDPOINT),
    ("error sending request", errno.ECONNRESET, "the connection was cut", _RETRIED),
    ("error decoding response", errno.ECONNRESET, "the connection was cut", _RETRIED),
    ("body error", errno.ECONNRESET, "the connection was cut", _RETRIED),
    ("IncompleteMessage", errno.ECONNRESET, "the connection was cut", _RETRIED),
)  # fmt: skip

_STATUSES: Final = {
    401: (errno.EACCES, "the server does not accept the credentials", _CREDENTIALS),
    403: (errno.EACCES, "the server does not allow it", _CREDENTIALS),
    404: (errno.ENOENT, "there is no such object", ""),
    405: (errno.EROFS, "the server does not take it", ""),
    409: (errno.EAGAIN, "another request was under way", _RETRIED),
    412: (errno.EEXIST, "it is there already", ""),
    429: (errno.EAGAIN, "the server takes no more requests", _RETRIED),
    507: (errno.ENOSPC, "the server has no room", ""),
}
_TYPES: Final = {
    "FileNotFoundError": _STATUSES[404],
    "PermissionDeniedError": _STATUSES[403],
    "UnauthenticatedError": _STATUSES[401],
    "AlreadyExistsError": _STATUSES[412],
    "NotSupportedError": (errno.EOPNOTSUPP, "this kind of store cannot do it", ""),
    "NotImplementedError": (errno.EOPNOTSUPP, "this kind of store cannot do it", ""),
}


def refused(action: str, place: str, error: BaseException) -> TargetError:
    """`action`: a verb, "read"; `place`: the object, without secrets; `error`: obstore's."""
    number, cause, hint = _meaning(error)
    return TargetError(f"cannot {action} {place}: {cause}", errno=number, hint=hint)


def _meaning(error: BaseException) -> tuple[int, str, str]:
    text = str(error)
    for mark, number, cause, hint in _KNOWN:
        if mark in text:
            return number, cause, hint
    status, code = _STATUS.search(text), _CODE.search(text)
    word = f" ({code[1]})" if code else ""
    if status:
        answer = int(status[1])
        if answer in _STATUSES:
            number, cause, hint = _STATUSES[answer]
            return number, cause + word, hint
        again = _RETRIED if answer >= 500 else ""
        return errno.EIO, f"the server answers with error {answer}{word}", again
    number, cause, hint = _TYPES.get(
        type(error).__name__, (errno.EIO, f"obstore's {type(error).__name__}", "")
    )
    return number, cause, hint
