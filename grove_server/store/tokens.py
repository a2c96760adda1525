"""Resume tokens: opaque to clients, a checksummed epoch and version to us.

The epoch is a random number made with the database and changed by a restore, so a token from before the restore is
recognised even though its version exists again. The checksum is against typing errors and truncation, not against
forgery: a token opens nothing that a watch without one would not.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from typing import Final

from grove_server.store.errors import TokenInvalidError

_BODY: Final = struct.Struct(">BQQ")
_CHECKSUM: Final = struct.Struct(">I")
_FORMAT: Final = 1
_LENGTH: Final = _BODY.size + _CHECKSUM.size
TEXT_LENGTH: Final = _LENGTH * 4 // 3
VERSION_MAX: Final = 2**63 - 1

# The version of a token that was taken before the first list was complete: resuming lists again. Not 0, which is the
# version of an empty database and can be resumed from.
START: Final = VERSION_MAX


def mint(epoch: int, version: int) -> str:
    """Return the token of *version*."""
    body = _BODY.pack(_FORMAT, epoch, version)
    return base64.urlsafe_b64encode(body + _CHECKSUM.pack(zlib.crc32(body))).decode("ascii")


def parse(token: str) -> tuple[int, int]:
    """Return epoch and version of *token*. Raises TokenInvalidError."""
    if len(token) != TEXT_LENGTH:
        raise TokenInvalidError("a resume token has another length")
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise TokenInvalidError("a resume token has other characters") from error
    body = raw[: _BODY.size]
    form, epoch, version = _BODY.unpack(body)
    if _CHECKSUM.unpack(raw[_BODY.size :])[0] != zlib.crc32(body):
        raise TokenInvalidError("the resume token is damaged")
    if form != _FORMAT or version > VERSION_MAX:
        raise TokenInvalidError("the resume token is of another kind of server")
    return epoch, version
