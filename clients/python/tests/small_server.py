"""A small real gRPC server: resources in a dictionary behind the services of `grove.v1`, for tests of the client.

It keeps the promises of the contract that the client relies on (order of lists, SYNCED, one change for many names) and
does nothing else: no validation, no controllers. A test sets `refusal` to have the next calls
refused, and `watch_end` to have watches end after what `on_watch` changed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import grpc
import pytest
import yaml
from google.protobuf import any_pb2, json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # stubs without py.typed

from grove.v1 import (
    cluster_topology_binding_pb2,
    event_pb2,
    node_pb2,
    pod_clique_pb2,
    pod_clique_scaling_group_pb2,
    pod_clique_set_pb2,
    pod_gang_pb2,
    pod_pb2,
    priority_class_pb2,
    queue_pb2,
    scaling_policy_pb2,
)
from grove_client.calls import METHODS
from grovectl.__main__ import main

CLASSES: dict[str, type[Message]] = {
    "PodCliqueSet": pod_clique_set_pb2.PodCliqueSet,
    "PodClique": pod_clique_pb2.PodClique,
    "PodCliqueScalingGroup": pod_clique_scaling_group_pb2.PodCliqueScalingGroup,
    "PodGang": pod_gang_pb2.PodGang,
    "Pod": pod_pb2.Pod,
    "Node": node_pb2.Node,
    "ClusterTopologyBinding": cluster_topology_binding_pb2.ClusterTopologyBinding,
    "PriorityClass": priority_class_pb2.PriorityClass,
    "Queue": queue_pb2.Queue,
    "ScalingPolicy": scaling_policy_pb2.ScalingPolicy,
    "Event": event_pb2.Event,
}
Fields = Any  # requests and resources of every kind pass through here; their fields are looked up by name


class Refusal(NamedTuple):
    """A refusal with google.rpc details."""

    code: grpc.StatusCode
    message: str
    details: tuple[Message, ...] = ()

    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Return the trailing metadata that carries the details."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def invalid(*violations: tuple[str, str]) -> Refusal:
    """Return the refusal of a manifest, with all its violations."""
    bad = error_details_pb2.BadRequest()
    for path, description in violations:
        bad.field_violations.add(field=path, description=description, reason="FIELD_INVALID")
    info = error_details_pb2.ErrorInfo(reason="INVALID_MANIFEST", domain="grove.io", metadata={"violation_count": "22"})
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "the manifest is not valid", (info, bad))


class Outcome(NamedTuple):
    """What a run of the program left behind."""

    code: int
    out: str
    err: str


class Grovectl:
    """Runs the program in this process and returns what it printed."""

    def __init__(self, address: str, capture: pytest.CaptureFixture[str]) -> None:
        self._address = address
        self._capture = capture

    def __call__(self, *arguments: str) -> Outcome:
        """Run `grovectl ARGUMENTS --server ADDRESS`."""
        self._capture.readouterr()
        code = main(["--server", self._address, *arguments])
        out, err = self._capture.readouterr()
        return Outcome(code, out, err)


class SmallServer:
    """The server. `calls` are the requests so far, `stored` the resources by (kind, namespace, name)."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, str], Fields] = {}
        self.calls: list[tuple[str, Fields]] = []
        self.refusal: Refusal | None = None
        self.answers: dict[str, Message] = {}
        self.dumped: list[Message] = []
        self.watch_end: Refusal | None = None
        self.on_watch: Callable[[SmallServer], None] | None = None
        self._watchers: list[queue.Queue[tuple[str, Fields] | None]] = []
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """End all streams and the server."""
        with self._lock:
            for watcher in self._watchers:
                watcher.put(None)
        self._server.stop(None).wait()

    def put(self, manifest: dict[str, Any]) -> Fields:
        """Store a resource and tell the watchers."""
        resource: Fields = json_format.ParseDict(manifest, CLASSES[manifest["kind"]]())
        key = (resource.kind, resource.metadata.namespace, resource.metadata.name)
        with self._lock:
            step = "MODIFIED" if key in self.stored else "ADDED"
            self.stored[key] = resource
            self._tell(step, resource)
        return resource

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Forget a resource and tell the watchers."""
        with self._lock:
            self._tell("DELETED", self.stored.pop((kind, namespace, name)))

    def _tell(self, step: str, resource: Fields) -> None:
        for watcher in self._watchers:
            watcher.put((step, resource))

    def matching(self, kind: str, request: Fields) -> list[Fields]:
        """Return the stored resources that a List or Watch asks for, sorted."""
        return [r for key, r in sorted(self.stored.items()) if key[0] == kind and _matches(r, request)]

    def unary(self, method: str, request: Fields, context: grpc.ServicerContext) -> Message:
        """Answer a unary call."""
        self.calls.append((method, request))
        if self.refusal is not None:
            refuse(context, self.refusal)
        if method in self.answers:
            return self.answers[method]
        _, service, verb = method.split("/")
        kind = service.removeprefix("grove.v1.").removesuffix("Service")
        answer: Fields = METHODS[method].response()
        if kind == "Manifest":
            self._manifests(verb, request, answer, context)
        elif kind == "Story":
            pass
        elif verb == "Get":
            answered: Message = self._find(kind, getattr(request, "namespace", ""), request.name, context)
            return answered
        elif verb == "List":
            self._list(kind, request, answer)
        elif verb == "Delete":
            for name in request.names:
                self._find(kind, getattr(request, "namespace", ""), name, context)
            for name in request.names if not request.validate_only else ():
                self.remove(kind, getattr(request, "namespace", ""), name)
        elif verb == "Scale":
            resource = self._find(kind, request.namespace, request.name, context)
            answer.previous, answer.replicas = resource.spec.replicas, request.replicas
            answer.scale_owner = request.requested_by
            resource.spec.replicas = request.replicas
        elif kind == "Node":
            self._nodes(verb, [self._find("Node", "", name, context) for name in request.names], answer)
        return answer  # type: ignore[no-any-return] # a message, see Fields

    def _nodes(self, verb: str, nodes: list[Fields], answer: Fields) -> None:
        for node in nodes:
            ready = node.status.conditions[0]
            before = (node.spec.unschedulable, ready.status)
            if verb in {"Cordon", "Uncordon"}:
                node.spec.unschedulable = verb == "Cordon"
            else:
                ready.status = "True" if verb == "MarkUp" else "False"
            if (node.spec.unschedulable, ready.status) != before:
                answer.changed.append(node.metadata.name)

    def _list(self, kind: str, request: Fields, answer: Fields) -> None:
        found = self.matching(kind, request)
        start = int(request.page_token or "0")
        size = request.page_size or 500
        answer.items.extend(found[start : start + size])
        answer.resource_version = "7"
        answer.next_page_token = str(start + size) if start + size < len(found) else ""

    def _find(self, kind: str, namespace: str, name: str, context: grpc.ServicerContext) -> Fields:
        resource = self.stored.get((kind, namespace, name))
        if resource is None:
            refuse(context, Refusal(grpc.StatusCode.NOT_FOUND, f'{kind} "{name}" not found'))
        return resource

    def _manifests(self, verb: str, request: Fields, answer: Fields, context: grpc.ServicerContext) -> None:
        for number, document in enumerate(yaml.safe_load_all(request.manifest), 1):
            metadata = document["metadata"]
            metadata.setdefault("namespace", request.default_namespace)
            key = (document["kind"], metadata["namespace"], metadata["name"])
            action = ("configured" if key in self.stored else "created") if verb == "Apply" else "deleted"
            if verb == "Apply" and not request.validate_only:
                self.put(document)
            elif verb == "Delete":
                self._find(*key, context)
                self.remove(*key)
            answer.results.add(
                document=number,
                api_version=document["apiVersion"],
                kind=key[0],
                namespace=key[1],
                name=key[2],
                action=action,
            )

    def stream(self, method: str, request: Fields, context: grpc.ServicerContext) -> Iterator[Message]:
        """Answer a dump with `dumped`, and a watch: what is there, SYNCED, then changes until the client goes."""
        if method == "/grove.v1.DebugService/Dump":
            yield from self.dumped
            return
        kind = method.split("/")[1].removeprefix("grove.v1.").removesuffix("Service")
        make = METHODS[method].response
        changes: queue.Queue[tuple[str, Fields] | None] = queue.Queue()
        with self._lock:
            present = self.matching(kind, request)
            self._watchers.append(changes)
        context.add_callback(lambda: changes.put(None))
        for resource in present:
            yield make(type="ADDED", object=resource)
        yield make(type="SYNCED", resume_token="0")
        if self.on_watch is not None:
            self.on_watch(self)
        if self.watch_end is not None:
            changes.put(None)
        while (change := changes.get()) is not None:
            step, resource = change
            if resource.kind == kind and _matches(resource, request):
                yield make(type=step, object=resource, resume_token="1")
        if self.watch_end is not None:
            refuse(context, self.watch_end)


def refuse(context: grpc.ServicerContext, refusal: Refusal) -> None:
    """End the call with *refusal*."""
    context.set_trailing_metadata(refusal.metadata())
    context.abort(refusal.code, refusal.message)


def _matches(resource: Fields, request: Fields) -> bool:
    """Return whether a request's namespace, name, equality selector and involved object choose the resource."""
    if hasattr(request, "namespace") and not request.all_namespaces:
        in_namespace = resource.metadata.namespace == (request.namespace or "default")
    else:
        in_namespace = True
    named = getattr(request, "name", "") in {"", resource.metadata.name}
    involved = getattr(request, "involved_name", "")
    about = not involved or resource.involved_object.name == involved
    wanted = [part.partition("=") for part in request.label_selector.split(",") if part]
    labelled = all(resource.metadata.labels.get(key, "") == value for key, _, value in wanted)
    return in_namespace and named and about and labelled


class _Handlers(grpc.GenericRpcHandler):
    """Routes every method of the package to the server."""

    def __init__(self, server: SmallServer) -> None:
        self._server = server

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        name = handler_call_details.method
        method = METHODS.get(name)
        if method is None:
            return None
        request_class: Fields = method.request
        if method.is_stream:
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: self._server.stream(name, request, context),
                request_deserializer=request_class.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._server.unary(name, request, context),
            request_deserializer=request_class.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


def meta(name: str, namespace: str = "default", labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the metadata of a manifest; *namespace* "" is for cluster-scoped kinds."""
    metadata: dict[str, Any] = {"name": name, "uid": f"uid-{name}", "creationTimestamp": "2026-01-01T00:00:00.000Z"}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return metadata
