"""QueueService: the named shares of the cluster."""

from __future__ import annotations

from grove.v1 import queue_pb2 as pb
from grove_server.api.reading import Requests
from grove_server.api.services.owned import Messages, OwnedService
from grove_server.resources.meta import Kind


class QueueService(OwnedService):
    """Queues: Apply, Create, Get, List, Update, Delete, Watch."""

    name = "grove.v1.QueueService"
    kind = Kind.QUEUE
    messages = Messages(
        apply=pb.QueueServiceApplyRequest,
        create=pb.QueueServiceCreateRequest,
        update=pb.QueueServiceUpdateRequest,
        delete=pb.QueueServiceDeleteRequest,
        reading=Requests(
            get=pb.QueueServiceGetRequest,
            list=pb.QueueServiceListRequest,
            watch=pb.QueueServiceWatchRequest,
        ),
    )
