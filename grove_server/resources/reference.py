"""How a resource refers to a shared PodTemplate: an object in memory, a name in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import PlainSerializer, PlainValidator, ValidationInfo


class SharedTemplate(Protocol):
    """What a pod or clique needs from its template. PodTemplate is the implementation."""

    @property
    def hash(self) -> str:
        """Content hash; the ``grove.io/pod-template-hash``."""

    @property
    def restart_hash(self) -> str:
        """Hash of what cannot change without a restart; empty for templates from before there was one."""

    @property
    def clique(self) -> str:
        """Name of the clique template it was made for."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels each pod gets."""

    @property
    def annotations(self) -> Mapping[str, str]:
        """Annotations each pod gets."""

    @property
    def pod_spec(self) -> Mapping[str, Any]:
        """The Kubernetes PodSpec as the user gave it."""

    @property
    def priority_class_name(self) -> str:
        """Priority class of the set."""

    @property
    def metadata(self) -> Any:  # noqa: ANN401 -- meta.Metadata; typed loosely so that this module stands below workload
        """Identity in the store."""


TemplateLookup = Callable[[str], SharedTemplate]


def _to_name(template: SharedTemplate) -> str:
    return f"{template.metadata.namespace}/{template.metadata.name}"


def _from_name(value: object, info: ValidationInfo) -> SharedTemplate:
    lookup: TemplateLookup = (info.context or {})["templates"]
    if not isinstance(value, str):
        msg = "a template reference must be namespace/name"
        raise ValueError(msg)  # noqa: TRY004 -- pydantic turns ValueError, not TypeError, into a validation error
    return lookup(value)


if TYPE_CHECKING:
    TemplateReference = SharedTemplate
else:
    TemplateReference = Annotated[
        SharedTemplate, PlainValidator(_from_name), PlainSerializer(_to_name, return_type=str)
    ]
