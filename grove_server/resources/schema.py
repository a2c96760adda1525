"""Reading manifests: JSON bytes in, typed manifests out, or everything that is wrong with their shape.

The compiled pydantic adapters do the reading; the words are ours, because users should not have to know what a
``tuple_type`` is. Wrong here means: not JSON, unknown fields, missing fields, wrong types, nested or sized beyond
bounds. What fields mean, and how they depend on each other, is admission's.

A field that is null counts as left out, as in Kubernetes. What is wrong does not end the reading: the error carries
the rest of the manifest (``repair``), so that admission can report its findings in the same answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from grove_server.resources.manifest import ClusterTopologyBindingManifest, PodCliqueSetManifest
from grove_server.resources.meta import API_VERSIONS, Kind
from grove_server.resources.mistakes import MAPS, MISTAKES_MAX, in_document_order, mistakes_in, place_of
from grove_server.resources.repair import ROUNDS_MAX, Gaps, Repair
from grove_server.resources.scaling_policy import ScalingPolicyManifest
from grove_server.resources.scheduling import PriorityClassManifest, QueueManifest
from grove_server.resources.violations import Reason, Violation, bounded, quoted

# etcd's default limit for one object: a manifest that Kubernetes could not keep is refused here too.
MANIFEST_SIZE_MAX_BYTES: Final = 1_572_864
NESTING_MAX: Final = 64
ENTRIES_MAX: Final = 4096
STRING_LENGTH_MAX: Final = 262_144
INT64_MAX: Final = 2**63 - 1

Manifest = (
    PodCliqueSetManifest
    | ClusterTopologyBindingManifest
    | PriorityClassManifest
    | QueueManifest
    | ScalingPolicyManifest
)
M = TypeVar(
    "M",
    PodCliqueSetManifest,
    ClusterTopologyBindingManifest,
    PriorityClassManifest,
    QueueManifest,
    ScalingPolicyManifest,
)

_SET: Final = TypeAdapter(PodCliqueSetManifest)
_BINDING: Final = TypeAdapter(ClusterTopologyBindingManifest)
_PRIORITY_CLASS: Final = TypeAdapter(PriorityClassManifest)
_QUEUE: Final = TypeAdapter(QueueManifest)
_SCALING_POLICY: Final = TypeAdapter(ScalingPolicyManifest)

_POSITION: Final = re.compile(r"line (\d+) column (\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What can be read of a document that is wrong in part: good for finding more mistakes, never for storing.

    ``gaps`` are the places whose values are not the user's; ``tree`` is the document as it was written.
    """

    manifest: Manifest
    gaps: Gaps
    tree: object


class SchemaError(ValueError):
    """A document does not have the shape of its kind; all violations at once, at most as many as one answer can carry.

    ``rest`` is what can be read of it nevertheless, None if that is nothing.
    """

    def __init__(self, violations: Sequence[Violation], rest: Rest | None = None, count: int | None = None) -> None:
        """Carry what is wrong; *count* is how many violations there are where not all are given."""
        self.count = len(violations) if count is None else count
        self.all_violations = tuple(violations)
        self.violations = bounded(violations, count=self.count)
        super().__init__("; ".join(str(violation) for violation in self.violations))
        self.rest = rest


def parse_pod_clique_set(data: bytes) -> PodCliqueSetManifest:
    """Return the PodCliqueSet that *data* (JSON) holds; raise SchemaError."""
    return _parse(_SET, data, Kind.POD_CLIQUE_SET, _free_parts_of_set)


def parse_cluster_topology_binding(data: bytes) -> ClusterTopologyBindingManifest:
    """Return the ClusterTopologyBinding that *data* (JSON) holds; raise SchemaError."""
    return _parse(_BINDING, data, Kind.CLUSTER_TOPOLOGY_BINDING, _free_parts_of_metadata)


def parse_priority_class(data: bytes) -> PriorityClassManifest:
    """Return the PriorityClass that *data* (JSON) holds; raise SchemaError."""
    return _parse(_PRIORITY_CLASS, data, Kind.PRIORITY_CLASS, _free_parts_of_metadata)


def parse_queue(data: bytes) -> QueueManifest:
    """Return the Queue that *data* (JSON) holds; raise SchemaError."""
    return _parse(_QUEUE, data, Kind.QUEUE, _free_parts_of_queue)


def parse_scaling_policy(data: bytes) -> ScalingPolicyManifest:
    """Return the ScalingPolicy that *data* (JSON) holds; raise SchemaError."""
    return _parse(_SCALING_POLICY, data, Kind.SCALING_POLICY, _free_parts_of_metadata)


def _parse(
    adapter: TypeAdapter[M], data: bytes, kind: Kind, free_parts: Callable[[M], Iterator[tuple[str, object]]]
) -> M:
    if len(data) > MANIFEST_SIZE_MAX_BYTES:
        message = f"must have at most {MANIFEST_SIZE_MAX_BYTES} bytes as JSON, has {len(data)}"
        raise SchemaError((Violation("", Reason.TOO_LONG, message),))
    reading: _Reading | None = None
    try:
        manifest = _validate(adapter, data)
    except ValidationError as error:
        manifest, reading = _read_again(adapter, data, error)
    violations = _identity_violations(manifest, kind)
    unbounded: list[str] = []
    for path, part in free_parts(manifest):
        depth = path.count(".") + path.count("[") + 2
        if not _is_bounded(part, depth):
            unbounded.append(path)
            _add_bound_violations(part, path, depth, violations)
    if violations or (reading is not None and reading.violations):
        reading = reading or _reading(data)
        if unbounded:
            manifest = _within_bounds(adapter, reading.repair, unbounded)
        raise _error(manifest, reading, violations)
    return manifest


def _validate(adapter: TypeAdapter[M], data: bytes | str) -> M:
    return adapter.validate_json(data, by_alias=True, by_name=False)


@dataclass(slots=True, kw_only=True)
class _Reading:
    """A document that is read again: as it was written but for its nulls, and repaired."""

    tree: Any
    repair: Repair
    violations: list[Violation] = field(default_factory=list)


def _reading(data: bytes) -> _Reading:
    tree = _without_nulls(json.loads(data))
    return _Reading(tree=tree, repair=Repair(_without_nulls(tree), data.decode()))


def _read_again(adapter: TypeAdapter[M], data: bytes, error: ValidationError) -> tuple[M, _Reading]:
    """Return what can be read of the document once it is repaired, and what was wrong with it, but for its nulls.

    Raises SchemaError if it cannot be repaired. Only documents that failed come here, so it need not be fast.
    """
    first = _details(error)[0]
    if first["type"] == "json_invalid":
        raise SchemaError((_json_violation(str(first.get("ctx", {}).get("error", ""))),))
    reading = _reading(data)
    repair, violations = reading.repair, reading.violations
    for _ in range(ROUNDS_MAX):
        try:
            return _validate(adapter, json.dumps(repair.tree)), reading
        except ValidationError as again:
            mistakes = mistakes_in(_details(again, violations), repair.tree)
        violations += (mistake.violation() for mistake in mistakes if not repair.is_known(mistake.place))
        if not repair.mend(mistakes):
            break
    raise SchemaError(in_document_order(violations, reading.tree))


def _within_bounds(adapter: TypeAdapter[M], repair: Repair, unbounded: list[str]) -> M:
    """Return the manifest without its *unbounded* parts."""
    for path in unbounded:
        repair.fill(place_of(path))
    return _validate(adapter, json.dumps(repair.tree))


def _error(manifest: Manifest, reading: _Reading, found: list[Violation]) -> SchemaError:
    """Return the error for a document that can be read in part; *found* is wrong with what can be read."""
    names = {violation.path for violation in reading.violations}
    violations = [*reading.violations, *(violation for violation in found if violation.path not in names)]
    rest = Rest(manifest=manifest, gaps=reading.repair.gaps, tree=reading.tree)
    return SchemaError(in_document_order(violations, reading.tree), rest)


def _details(error: ValidationError, known: Sequence[Violation] = ()) -> list[ErrorDetails]:
    """Return what the reader found, unless it is too much to describe: the answer is then *known*, or the number."""
    if error.error_count() > MISTAKES_MAX:
        message = f"has {error.error_count()} fields that are unknown, missing or of a wrong type"
        raise SchemaError(known or (Violation("", Reason.TOO_MANY, message),))
    return error.errors(include_url=False)


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _json_violation(text: str) -> Violation:
    position = _POSITION.search(text)
    where = f" (line {position[1]}, column {position[2]})" if position else ""
    if text.startswith("recursion limit"):
        return Violation("", Reason.INVALID, f"must not be nested deeper than {NESTING_MAX} levels{where}")
    return Violation("", Reason.INVALID, f"must be valid JSON{where}")


def _identity_violations(manifest: Manifest, kind: Kind) -> list[Violation]:
    violations: list[Violation] = []
    if manifest.api_version != API_VERSIONS[kind]:
        message = f"must be {API_VERSIONS[kind]}, got {quoted(manifest.api_version)}"
        violations.append(Violation("apiVersion", Reason.NOT_SUPPORTED, message))
    if manifest.kind != kind:
        violations.append(Violation("kind", Reason.NOT_SUPPORTED, f"must be {kind}, got {quoted(manifest.kind)}"))
    return violations


def _free_parts_of_set(manifest: PodCliqueSetManifest) -> Iterator[tuple[str, object]]:
    """Yield the parts of a set whose inside no dataclass describes."""
    yield "metadata.labels", manifest.metadata.labels
    yield "metadata.annotations", manifest.metadata.annotations
    template = manifest.spec.template
    for index, clique in enumerate(template.cliques):
        path = f"spec.template.cliques[{index}]"
        yield f"{path}.labels", clique.labels
        yield f"{path}.annotations", clique.annotations
        yield f"{path}.spec.podSpec", clique.spec.pod_spec
        if clique.spec.auto_scaling_config is not None:
            yield f"{path}.spec.autoScalingConfig.metrics", clique.spec.auto_scaling_config.metrics
    for index, group in enumerate(template.pod_clique_scaling_groups):
        if group.scale_config is not None:
            yield f"spec.template.podCliqueScalingGroups[{index}].scaleConfig.metrics", group.scale_config.metrics
    for index, claim in enumerate(template.resource_claim_templates):
        yield f"spec.template.resourceClaimTemplates[{index}].templateSpec", claim.template_spec


def _free_parts_of_metadata(
    manifest: ClusterTopologyBindingManifest | PriorityClassManifest | QueueManifest | ScalingPolicyManifest,
) -> Iterator[tuple[str, object]]:
    yield "metadata.labels", manifest.metadata.labels
    yield "metadata.annotations", manifest.metadata.annotations


def _free_parts_of_queue(manifest: QueueManifest) -> Iterator[tuple[str, object]]:
    yield from _free_parts_of_metadata(manifest)
    yield "spec.guarantee", manifest.spec.guarantee
    yield "spec.limit", manifest.spec.limit


def _is_bounded(value: Any, depth: int) -> bool:  # noqa: ANN401 -- any JSON
    """Return whether a part is within all bounds; written for speed, it looks at each value of each manifest."""
    kind = type(value)
    if kind is str:
        return len(value) <= STRING_LENGTH_MAX
    if kind is dict:
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    elif kind is int:
        return bool(-INT64_MAX <= value <= INT64_MAX)
    elif kind is float:
        return math.isfinite(value)
    else:
        return True
    if depth > NESTING_MAX or len(items) > ENTRIES_MAX:
        return False
    for item in items:
        # Most values are short strings; a call for each would double the time.
        if type(item) is str:
            if len(item) > STRING_LENGTH_MAX:
                return False
        elif not _is_bounded(item, depth + 1):
            return False
    return True


def _add_bound_violations(value: object, path: str, depth: int, violations: list[Violation]) -> None:
    """Say what _is_bounded found, with paths; nested parts of what is itself out of bounds are not looked at."""
    match value:
        case bool() | None:
            return
        case str():
            if len(value) > STRING_LENGTH_MAX:
                message = f"must have at most {STRING_LENGTH_MAX} characters, has {len(value)}"
                violations.append(Violation(path, Reason.TOO_LONG, message))
            return
        case int():
            if not -INT64_MAX <= value <= INT64_MAX:
                violations.append(Violation(path, Reason.INVALID, "must fit into 64 bits"))
            return
        case float():
            if not math.isfinite(value):
                violations.append(Violation(path, Reason.INVALID, "must be a finite number"))
            return
        case dict() | list() | tuple():
            if depth > NESTING_MAX:
                message = f"must not be nested deeper than {NESTING_MAX} levels"
                violations.append(Violation(path, Reason.INVALID, message))
                return
            if len(value) > ENTRIES_MAX:
                message = f"must have at most {ENTRIES_MAX} entries, has {len(value)}"
                violations.append(Violation(path, Reason.TOO_MANY, message))
                return
            is_map = path.rpartition(".")[2] in MAPS
            children = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in children:
                step = f".{key}" if isinstance(key, str) and not is_map else f"[{key}]"
                _add_bound_violations(item, path + step, depth + 1, violations)
        case _:
            return
