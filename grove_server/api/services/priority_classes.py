"""PriorityClassService: the priorities that have names."""

from __future__ import annotations

from grove.v1 import priority_class_pb2 as pb
from grove_server.api.reading import Requests
from grove_server.api.services.owned import Messages, OwnedService
from grove_server.resources.meta import Kind


class PriorityClassService(OwnedService):
    """Priority classes: Apply, Create, Get, List, Update, Delete, Watch."""

    name = "grove.v1.PriorityClassService"
    kind = Kind.PRIORITY_CLASS
    messages = Messages(
        apply=pb.PriorityClassServiceApplyRequest,
        create=pb.PriorityClassServiceCreateRequest,
        update=pb.PriorityClassServiceUpdateRequest,
        delete=pb.PriorityClassServiceDeleteRequest,
        reading=Requests(
            get=pb.PriorityClassServiceGetRequest,
            list=pb.PriorityClassServiceListRequest,
            watch=pb.PriorityClassServiceWatchRequest,
        ),
    )
