"""A replay as people read it, and as a JSON document for programs.

Rules: the figures first, then each gang, then what was odd about the input; no line is cut, lists are bounded and say
how much they leave out. The document has everything, its keys in camelCase as in the contract; amounts of GPUs are in
GPUs, ratios between 0 and 1.

Not here: the picture (`placement.picture_text`, `placement.picture_svg`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from grove_server.placement.fragmentation import Fragmentation, LargestGang
from grove_server.placement.requests import GPU_RESOURCE, PodShape
from grove_server.placement.results import Placement, Verdict, short_level
from grove_server.placement.trial_answer import TrialAnswer
from grove_server.replay.objects import Json
from grove_server.replay.replaying import ClusterPicture, Replay

GANGS_SHOWN_MAX: Final = 50
NODES_SHOWN_MAX: Final = 6
_MILLI: Final = 1_000


def report_lines(found: Replay) -> Iterator[str]:
    """Yield the report, without the picture."""
    yield from _cluster_lines(found)
    yield ""
    yield from _largest_lines("largest gang that fits now (pods in one domain)", found.before.largest)
    if found.answers:
        yield ""
        yield from _gang_lines(found)
    if found.after is not None:
        yield ""
        yield f"afterwards: {fragmentation_text(found.after.fragmentation)}"
        yield from _largest_lines("largest gang that still fits", found.after.largest)
    odd = [*found.findings.lines(), *(f"warning: {warning}" for warning in found.warnings)]
    if odd:
        yield ""
        yield "odd about the input:"
        yield from (f"  {line}" for line in odd)


def _cluster_lines(found: Replay) -> Iterator[str]:
    levels = " > ".join(f"{level.domain} ({level.key})" for level in found.levels)
    pods = found.pods
    yield f"topology: {levels}" + ("  (guessed from labels; --topology names another)" if found.is_guessed else "")
    yield (
        f"nodes: {found.before.fragmentation.node_count}; pods: {pods.running} on nodes, {pods.pending} without, "
        f"{pods.over} ended, {pods.left_out} unreadable"
    )
    yield fragmentation_text(found.before.fragmentation)


def fragmentation_text(figures: Fragmentation) -> str:
    """Return the figures of a cluster as one line."""
    if not figures.gpu_milli:
        return "no GPUs"
    shares = ", ".join(
        f"{use.partly_used} of {use.empty + use.partly_used + use.full} {short_level(use.level) or 'node'}s partly used"
        for use in figures.levels
    )
    text = (
        f"GPUs: {figures.allocated_milli / _MILLI:g} of {figures.gpu_milli / _MILLI:g} allocated "
        f"({figures.allocation_ratio:.1%}); {shares}"
    )
    if figures.unusable_share is not None:
        text += f"; {figures.unusable_share:.1%} of all GPUs free but unusable for the pods that run here"
    return text


def _largest_lines(title: str, largest: Sequence[LargestGang]) -> Iterator[str]:
    """Yield a table: a line per shape, a column per level."""
    shapes = list(dict.fromkeys(each.shape for each in largest))
    if not shapes:
        return
    columns = [each for each in largest if each.shape == shapes[0]]
    heads = ["node" if each.is_node else short_level(each.level) or "cluster" for each in columns]
    rows = [["pod", *heads]]
    for shape in shapes:
        mine = [each for each in largest if each.shape == shape]
        rows.append([shape_text(shape), *(f"{r.pod_count}" + (f" ({r.domain})" if r.domain else "") for r in mine)])
    yield f"{title}:"
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()


def shape_text(shape: PodShape) -> str:
    """Return what pods of a shape are, in GPUs."""
    if shape.gpu_milli:
        return f"{shape.gpu_milli / _MILLI:g} GPU"
    return f"{shape.amount(GPU_RESOURCE)} GPU"


def _gang_lines(found: Replay) -> Iterator[str]:
    placed = sum(answer.fits for answer in found.answers)
    yield f"{placed} of {len(found.answers)} gangs find places:"
    # Those that do not fit are what people look for.
    ordered = sorted(found.answers, key=lambda answer: answer.fits)
    for answer in ordered[:GANGS_SHOWN_MAX]:
        yield from (f"  {line}" for line in answer_lines(answer))
    if len(ordered) > GANGS_SHOWN_MAX:
        yield f"  {len(ordered) - GANGS_SHOWN_MAX} more are not shown; --json has all"


def answer_lines(answer: TrialAnswer) -> Iterator[str]:
    """Yield what would happen to one gang."""
    name = answer.planned.name
    part = answer.telling
    if part is None:
        yield f"{name}: waits: {answer.waiting_reason}: {answer.waiting_message}"
    elif isinstance(part.outcome, Verdict):
        yield f"{name}: does not fit: {part.outcome.code}: {part.outcome.sentence()}"
        if answer.eviction is not None:
            yield f"  with preemption: {'; '.join(answer.eviction.reasons)}"
            yield from (f"    {victim.gang}: {len(victim.pods)} pods" for victim in answer.eviction.victims[:5])
            if len(answer.eviction.victims) > 5:  # noqa: PLR2004 -- as many as are shown above
                yield f"    and {len(answer.eviction.victims) - 5} gangs more"
    else:
        where = ", ".join(f"{short_level(d.level)} {d.value}" for d in part.outcome.domains if d.level)
        yield f"{name}: fits" + (f" in {where}" if where else "") + f", score {part.outcome.score:.2f}"
        yield f"  {_nodes_text(part.outcome)}"


def _nodes_text(placement: Placement) -> str:
    counts = Counter(binding.node for clique in placement.cliques for binding in clique.bindings)
    shown = [f"{node} ({count})" for node, count in list(counts.items())[:NODES_SHOWN_MAX]]
    more = f" and {len(counts) - NODES_SHOWN_MAX} nodes more" if len(counts) > NODES_SHOWN_MAX else ""
    return f"{placement.pod_count} pods on {', '.join(shown) or 'no node'}{more}"


# -- the document ------------------------------------------------------------------------------------------------------


def document(found: Replay) -> Json:
    """Return everything as plain JSON values."""
    return {
        "topology": [{"domain": level.domain, "key": level.key} for level in found.levels],
        "topologyGuessed": found.is_guessed,
        "pods": {
            "running": found.pods.running,
            "pending": found.pods.pending,
            "ended": found.pods.over,
            "leftOut": found.pods.left_out,
        },
        "before": _picture(found.before),
        "gangs": [_gang(answer) for answer in found.answers],
        "fits": found.fits,
        **({} if found.after is None else {"after": _picture(found.after)}),
        "warnings": list(found.warnings),
        "findings": [
            {"what": what, "count": found.findings.counts[what], "examples": texts}
            for what, texts in found.findings.kept.items()
        ],
    }


def _picture(picture: ClusterPicture) -> Json:
    figures = picture.fragmentation
    return {
        "nodeCount": figures.node_count,
        "gpus": figures.gpu_milli / _MILLI,
        "gpusAllocated": figures.allocated_milli / _MILLI,
        "gpuAllocationRatio": figures.allocation_ratio,
        "gpusUnusable": None if figures.unusable_milli is None else figures.unusable_milli / _MILLI,
        "nodeFragmentationRatio": figures.node_fragmentation_ratio,
        "levels": [
            {"key": use.level, "empty": use.empty, "partlyUsed": use.partly_used, "full": use.full}
            for use in figures.levels
        ],
        "largestGangs": [
            {
                "gpusPerPod": each.shape.amount(GPU_RESOURCE),
                "level": "node" if each.is_node else each.level,
                "domain": each.domain,
                "podCount": each.pod_count,
            }
            for each in picture.largest
        ],
    }


def _gang(answer: TrialAnswer) -> Json:
    gang = answer.planned.gang
    found: Json = {
        "namespace": gang.metadata.namespace,
        "name": gang.metadata.name,
        "podCliqueSet": gang.set_name,
        "role": "scaled" if gang.base_gang else "base",
        "fits": answer.fits,
    }
    part = answer.telling
    if part is None:
        return {**found, "reason": answer.waiting_reason, "sentence": answer.waiting_message}
    if isinstance(part.outcome, Verdict):
        verdict = part.outcome
        found |= {
            "reason": verdict.code.value,
            "sentence": verdict.sentence(),
            "proof": verdict.proof,
            "wouldFitIf": [remedy.sentence() for remedy in verdict.remedies],
        }
        if answer.eviction is not None:
            found["evictions"] = [
                {"gang": victim.gang, "kind": victim.kind.value, "pods": list(victim.pods)}
                for victim in answer.eviction.victims
            ]
        return found
    return {
        **found,
        "score": part.outcome.score,
        "domains": [
            {"scope": choice.scope, "key": choice.level, "domain": choice.value} for choice in part.outcome.domains
        ],
        "pods": [
            {"clique": clique.name, "node": binding.node, "gpuIds": list(binding.gpu_ids)}
            for clique in part.outcome.cliques
            for binding in clique.bindings
        ],
    }
