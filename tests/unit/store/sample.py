"""What the store's tests store: a small resource filed under real kinds, and its codec."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from grove_server.resources.meta import Key, Kind, Metadata
from grove_server.store.interface import Index


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A resource with a size."""

    kind: ClassVar[Kind] = Kind.POD

    metadata: Metadata
    resource_version: int = 0
    size: int = 0
    padding: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherSample(Sample):
    """The same under another kind."""

    kind: ClassVar[Kind] = Kind.NODE


CLASSES: Final = {Kind.POD: Sample, Kind.NODE: OtherSample}


class SampleCodec:
    """Plain JSON."""

    DECODE_ORDER = (Kind.NODE, Kind.POD)

    def encode(self, resource: Any, /) -> bytes:  # noqa: ANN401 -- the codec's protocol takes any resource
        """Return the row."""
        fields = dataclasses.asdict(resource)
        del fields["resource_version"]
        return json.dumps(fields).encode()

    def decode(self, kind: Kind, payload: bytes, templates: Callable[[str], Any], /) -> Sample:  # noqa: ARG002 -- samples refer to nothing
        """Return the resource."""
        fields = json.loads(payload)
        fields["metadata"] = Metadata(**fields["metadata"])
        return CLASSES[kind](**fields)


SAMPLE_CODEC: Final = SampleCodec()
INDEXES: Final[Mapping[str, Index]] = {"by-size": (Kind.POD, lambda sample: (sample.size,))}


def sample(
    name: str,
    size: int = 0,
    *,
    namespace: str = "default",
    uid: str | None = None,
    labels: Mapping[str, str] | None = None,
    padding: str = "",
) -> Sample:
    """Return a sample; its uid follows from its name unless given."""
    metadata = Metadata(name=name, namespace=namespace, uid=uid or f"uid-{name}", labels=labels or {})
    return Sample(metadata=metadata, size=size, padding=padding)


def key(name: str, namespace: str = "default") -> Key:
    """Return the key of a sample."""
    return Key(Kind.POD, namespace, name)
