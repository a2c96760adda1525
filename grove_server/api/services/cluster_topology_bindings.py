"""ClusterTopologyBindingService: which node labels are the levels of the cluster."""

from __future__ import annotations

from grove.v1 import cluster_topology_binding_pb2 as pb
from grove_server.api.reading import Requests
from grove_server.api.services.owned import Messages, OwnedService
from grove_server.resources.meta import Kind


class ClusterTopologyBindingService(OwnedService):
    """Topology bindings: Apply, Create, Get, List, Update, Delete, Watch."""

    name = "grove.v1.ClusterTopologyBindingService"
    kind = Kind.CLUSTER_TOPOLOGY_BINDING
    messages = Messages(
        apply=pb.ClusterTopologyBindingServiceApplyRequest,
        create=pb.ClusterTopologyBindingServiceCreateRequest,
        update=pb.ClusterTopologyBindingServiceUpdateRequest,
        delete=pb.ClusterTopologyBindingServiceDeleteRequest,
        reading=Requests(
            get=pb.ClusterTopologyBindingServiceGetRequest,
            list=pb.ClusterTopologyBindingServiceListRequest,
            watch=pb.ClusterTopologyBindingServiceWatchRequest,
        ),
    )
