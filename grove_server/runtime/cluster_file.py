"""The cluster file (``--cluster FILE``): the nodes of the fake runtime, and how they hang together. Pure.

YAML or JSON documents: v1 Node manifests, v1 Lists of them (so the output of ``kubectl get nodes -o yaml`` can be
replayed), our NodePool short form, and manifests of what belongs to a cluster (``cluster_objects``). The format is
described in docs/cluster-file.md. Whatever is wrong is reported together, with the document's number and the field's
path; a file with a problem yields nothing.

Not here: opening the file, and what happens to nodes that a running server already has (``cluster_seed``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import yaml

from grove_server.resources.cluster import ClusterTopologyBinding, Node
from grove_server.resources.meta import CORE_API_VERSION, GROVE_API_VERSION, PRIORITY_API_VERSION
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue
from grove_server.resources.violations import quoted
from grove_server.runtime.cluster_objects import ObjectReading, object_kind
from grove_server.runtime.fields import Fields, Problem, Problems
from grove_server.runtime.node_source import NODES_MAX, read_node, read_pool

# A dump of a few thousand real nodes, each with its image list, is some 50 MiB.
SIZE_MAX_BYTES: Final = 256 * 1024 * 1024
DOCUMENTS_MAX: Final = 10_000
NESTING_MAX: Final = 64

KIND_NODE: Final = "Node"
KIND_LIST: Final = "List"
KIND_POOL: Final = "NodePool"
_NODES: Final = frozenset({(CORE_API_VERSION, KIND_NODE), (GROVE_API_VERSION, KIND_POOL)})


class ClusterFileError(ValueError):
    """The cluster file is not usable; carries every problem, ``count`` of them in all."""

    def __init__(self, problems: Problems) -> None:
        """Say one problem per line."""
        self.problems: tuple[Problem, ...] = tuple(problems.listed)
        self.count = problems.count
        lines = [str(problem) for problem in self.problems]
        if self.count > len(lines):
            lines.append(f"and {self.count - len(lines)} more")
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """What a cluster file describes. Nothing carries a uid or times yet; names are unique by kind."""

    nodes: tuple[Node, ...]
    bindings: tuple[ClusterTopologyBinding, ...]
    priority_classes: tuple[PriorityClass, ...] = ()
    queues: tuple[Queue, ...] = ()


def default_cluster_text() -> str:
    """Return the built-in cluster file: 64 nodes of 8 GPUs in 2 zones, 4 blocks and 16 racks."""
    return resources.files("grove_server.runtime").joinpath("default_cluster.yaml").read_text(encoding="utf-8")


def parse_cluster(text: str, *, nodes_are_given: bool = True) -> ClusterFile:
    """Return the cluster that *text* describes. Raises ClusterFileError with everything that is wrong with it.

    Where nodes are real (*nodes_are_given* is False), a file that describes any is wrong.
    """
    reading = _Reading(nodes_are_given=nodes_are_given)
    for number, document in _documents(text, reading.problems):
        reading.take(Fields(document, number, "", reading.problems))
    objects = reading.objects.admit()
    if nodes_are_given and not reading.nodes and not reading.problems.count:
        reading.problems.add(1, "", "the file describes no node")
    if reading.problems.count:
        raise ClusterFileError(reading.problems)
    return ClusterFile(
        nodes=tuple(reading.nodes),
        bindings=tuple(each for each in objects if isinstance(each, ClusterTopologyBinding)),
        priority_classes=tuple(each for each in objects if isinstance(each, PriorityClass)),
        queues=tuple(each for each in objects if isinstance(each, Queue)),
    )


class _Loader(yaml.CSafeLoader):
    """The safe loader without dates (a label such as 2026-01-01 is a text), which refuses keys that are given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        """Return the mapping of *node*; raise ConstructorError if a key is there twice."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {quoted(key.value)} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _documents(text: str, problems: Problems) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the documents with their number; those that are not empty are counted, from 1.

    Not read by ``resources.document``, whose bounds are those of one request: a dump of real nodes is larger.
    """
    if len(text) > SIZE_MAX_BYTES:
        problems.add(1, "", f"the file must have at most {SIZE_MAX_BYTES >> 20} MiB")
        return
    number = 1
    try:
        if _is_deep(text):
            problems.add(number, "", f"the file must not be nested deeper than {NESTING_MAX} levels")
            return
        for document in yaml.load_all(text, Loader=_Loader):
            if document is None:
                continue
            if number > DOCUMENTS_MAX:
                problems.add(number, "", f"the file must have at most {DOCUMENTS_MAX} documents")
                return
            if isinstance(document, Mapping):
                yield number, document
            else:
                problems.add(number, "", f"must be a mapping, got {quoted(document)}")
            number += 1
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        problems.add(number, "", f"{line}is not valid YAML: {error.problem}")
    except yaml.YAMLError:
        problems.add(number, "", "is not valid YAML")


def _is_deep(text: str) -> bool:
    """Return whether *text* is nested beyond reason.

    NB: this must come before loading: PyYAML's C loader recurses without a bound, and some ten thousand brackets end
    the process. Its event parser does not recurse, and takes a small part of the time.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > NESTING_MAX:
                return True
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return False


class _Reading:
    """What was read so far."""

    def __init__(self, *, nodes_are_given: bool) -> None:
        self.problems = Problems()
        self.nodes: list[Node] = []
        self._nodes_are_given = nodes_are_given
        self.objects = ObjectReading()
        self._names: set[tuple[str, str]] = set()

    def take(self, document: Fields) -> None:
        """Read one document, or one item of a list."""
        api_version, kind = document.values.get("apiVersion"), document.values.get("kind")
        if (api_version, kind) == (CORE_API_VERSION, KIND_LIST):
            for item in document.children("items"):
                self.take(item)
        elif not self._nodes_are_given and (api_version, kind) in _NODES:
            document.complain("kind", f"must not be {kind}: the node is this machine, and found by the server")
        elif (api_version, kind) == (CORE_API_VERSION, KIND_NODE):
            self._keep(document, [read_node(document, len(self.nodes))])
        elif (api_version, kind) == (GROVE_API_VERSION, KIND_POOL):
            self._keep(document, read_pool(document, len(self.nodes), NODES_MAX - len(self.nodes)))
        elif (found := object_kind(api_version, kind)) is not None:
            name = self.objects.take(document)
            if name is not None:
                self._claim(document, found.value, name)
        else:
            document.complain(
                "kind",
                f"must be {KIND_NODE} or {KIND_LIST} of {CORE_API_VERSION}, {KIND_POOL}, ClusterTopologyBinding or "
                f"Queue of {GROVE_API_VERSION}, or PriorityClass of {PRIORITY_API_VERSION}; got {quoted(kind)} of "
                f"{quoted(api_version)}",
            )

    def _keep(self, document: Fields, nodes: list[Node]) -> None:
        if len(self.nodes) + len(nodes) > NODES_MAX:
            document.complain("", f"the file must describe at most {NODES_MAX} nodes")
            return
        for node in nodes:
            self._claim(document, KIND_NODE, node.metadata.name)
        self.nodes += nodes

    def _claim(self, document: Fields, kind: str, name: str) -> None:
        if name and (kind, name) in self._names:
            document.complain("metadata.name", f"there are two {_plural(kind)} called {quoted(name)}")
        self._names.add((kind, name))


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"
