"""Who is calling and what they may do.

On loopback and unix sockets everybody is the local administrator: whoever can connect can read the store's file, too.
Elsewhere a client certificate names the caller: its first URI name (SPIFFE), else its first DNS name, else its common
name. Without client certificates callers are anonymous. Permission is checked before anything is looked up, so a
refusal says nothing about what exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import grpc

from grove_server.api.reasons import ApiError, Reason
from grove_server.api.tables import Access

ROLES: Final[Mapping[str, Access]] = {
    "none": Access.NONE,
    "read": Access.READ,
    "write": Access.WRITE,
    "admin": Access.ADMIN,
}


class Identity(NamedTuple):
    """A caller: a name for logs, and a role."""

    name: str
    access: Access


LOCAL: Final = Identity("local", Access.ADMIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicy:
    """How callers become identities. With ``everybody`` set, no certificate is looked at."""

    everybody: Identity | None = LOCAL
    roles: Mapping[str, Access] = field(default_factory=dict)
    role_default: Access = Access.READ

    def identify(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> Identity:
        """Return who calls."""
        if self.everybody is not None:
            return self.everybody
        name = certificate_name(context.auth_context())
        return Identity(name, self.roles.get(name, self.role_default))


def demand(identity: Identity, needed: Access) -> None:
    """Raise the refusal if *identity* may not do what needs *needed*."""
    if identity.access < needed:
        raise ApiError(
            reason=Reason.PERMISSION_DENIED,
            message=f"{identity.name} has the role {identity.access.name.lower()}; this needs {needed.name.lower()}",
            metadata={"role": identity.access.name.lower(), "needed": needed.name.lower()},
        )


def certificate_name(auth_context: Mapping[str, object]) -> str:
    """Return the name in a client certificate, or "anonymous" if there is none.

    gRPC lists the subject's alternative names without their type; SPIFFE ids have a property of their own.
    """
    for key in ("peer_spiffe_id", "x509_subject_alternative_name", "x509_common_name"):
        values = auth_context.get(key)
        if isinstance(values, list | tuple) and values and isinstance(values[0], bytes) and values[0]:
            return values[0].decode("utf-8", "replace")
    return "anonymous"
