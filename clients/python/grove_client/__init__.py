"""Client of Grove Server for asyncio programs.

    async with grove_client.connect("127.0.0.1:50051") as grove:
        async for pod in grove.pods.list(namespace="default", label_selector="grove.io/podclique=chat-0-decode"):
            print(pod.metadata.name, pod.status.pod_ip)
        async for event in grove.pod_gangs.watch(all_namespaces=True):
            print(event.type, event.object and event.object.status.phase)

Messages are the generated ones of `grove.v1`. Failures are GroveError and its subclasses. Every unary call has a
deadline, idempotent ones are retried while the server is away, and a watch goes on over restarts of the server.
"""

from grove_client.client import DEFAULT_TARGET, GroveClient, connect
from grove_client.errors import (
    AlreadyExistsError,
    CancelledByServerError,
    ConflictError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    GroveError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    TokenExpiredError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from grove_client.objects import to_object
from grove_client.resources import Applied, Scaled
from grove_client.watching import WatchEvent, WatchPolicy

__all__ = [
    "DEFAULT_TARGET",
    "AlreadyExistsError",
    "Applied",
    "CancelledByServerError",
    "ConflictError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "FieldViolation",
    "GroveClient",
    "GroveError",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "Scaled",
    "TokenExpiredError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "WatchEvent",
    "WatchPolicy",
    "connect",
    "to_object",
]
