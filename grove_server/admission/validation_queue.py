"""Rules for what says whose turn a set is: its queue and its priority class.

Neither has to exist: manifests come in any order, and both may vanish under a running set. A set whose queue does not
exist waits; one whose class does not exist has the priority 0; the answer warns of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Findings
from grove_server.resources.manifest import CliqueTemplate, ManifestMetadata, PodCliqueSetTemplate
from grove_server.resources.names import dns_label_problem
from grove_server.resources.priority import is_built_in_class
from grove_server.resources.queues import QUEUE_KEYS, named_queue, queue_named_by, queue_problem
from grove_server.resources.violations import quoted


def check_turn(
    metadata: ManifestMetadata, template: PodCliqueSetTemplate, context: AdmissionContext, findings: Findings
) -> None:
    """Check the queue of a set, and warn of a queue or a priority class that does not exist (yet)."""
    _check_names(metadata.labels, "metadata.labels", findings)
    _check_names(metadata.annotations, "metadata.annotations", findings)
    queue = named_queue(metadata.labels, metadata.annotations, template.cliques)
    _check_cliques(template.cliques, queue, findings)
    problem = queue_problem(queue, context.queues)
    if problem is not None:
        reason, sentence = problem
        findings.warn(f"{sentence}: nothing is placed while that is so ({reason})")
    name = template.priority_class_name
    if name and name not in context.global_defaults and not is_built_in_class(name):
        findings.warn(
            f"spec.template.priorityClassName: there is no PriorityClass {name}: the priority is 0 until then"
        )


def _check_names(entries: Mapping[str, str] | None, path: str, findings: Findings) -> None:
    for key in QUEUE_KEYS:
        name = entries.get(key) if entries else None
        problem = dns_label_problem(name) if name else None
        if problem is not None:
            findings.invalid(f"{path}[{key}]", f"names no queue: {problem}")


def _check_cliques(cliques: Sequence[CliqueTemplate], queue: str, findings: Findings) -> None:
    """Check that all cliques that name a queue name that of the set."""
    for index, clique in enumerate(cliques):
        path = f"spec.template.cliques[{index}]"
        named = queue_named_by(clique.labels, clique.annotations)
        if not named:
            continue
        _check_names(clique.labels, f"{path}.labels", findings)
        _check_names(clique.annotations, f"{path}.annotations", findings)
        if named != queue:
            in_labels = clique.labels and named in (clique.labels.get(key) for key in QUEUE_KEYS)
            where = f"{path}.labels" if in_labels else f"{path}.annotations"
            entries = (clique.labels if in_labels else clique.annotations) or {}
            key = next(key for key in QUEUE_KEYS if entries.get(key) == named)
            findings.invalid(f"{where}[{key}]", f"must be {quoted(queue)} as for the whole set, got {quoted(named)}")
