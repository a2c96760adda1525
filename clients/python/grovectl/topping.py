"""`top`: what pods and nodes use now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

from grovectl import table
from grovectl.failures import usage
from grovectl.kinds import find
from grovectl.session import Session, connected_command
from grovectl.table import NONE, UNKNOWN

if TYPE_CHECKING:
    from grove.v1.container_pb2 import ContainerServiceGetUsageResponse, ContainerUsage, GpuUsage, NodeUsage, PodUsage
    from grove_client import GroveClient

_MIB_KI: Final = 1024
_USE_TITLES: Final = ("CPU(cores)", "MEMORY(bytes)", "PROCESSES")
_GPU_TITLES: Final = ("GPUS", "GPU%", "GPU-MEMORY")


@click.command()
@click.argument("kind", metavar="pods|nodes")
@click.argument("name", required=False, default="", metavar="[NAME]")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
@click.option("-l", "--selector", default="", metavar="SELECTOR", help="Label selector, for example app=chat.")
@click.option("--containers", is_flag=True, help="A line for each container.")
@click.option("--sort-by", type=click.Choice(["cpu", "memory"]), help="The largest first.")
@click.option("--no-headers", is_flag=True, help="Leave out the line of titles.")
@connected_command
def top(
    session: Session,
    *,
    kind: str,
    name: str,
    all_namespaces: bool,
    selector: str,
    containers: bool,
    sort_by: str | None,
    no_headers: bool,
) -> None:
    """Show what pods or nodes use: cores, memory, processes, GPUs."""
    info = find(kind)
    if info.kind not in {"Pod", "Node"}:
        raise usage(f"{info.resource} has no use of its own; say pods or nodes")
    if info.kind == "Node" and (selector or all_namespaces or containers):
        raise usage("-l, -A and --containers are for pods")
    if name and (selector or all_namespaces):
        raise usage("a name excludes -l and -A")

    async def body(grove: GroveClient) -> ContainerServiceGetUsageResponse:
        if info.kind == "Node":
            # Pods are of no interest then; no set has this label.
            return await grove.containers.usage(namespace=session.namespace, label_selector="grove.io/none=none")
        return await grove.containers.usage(
            namespace="" if all_namespaces else session.namespace,
            all_namespaces=all_namespaces,
            label_selector=selector,
            pod=name,
        )

    answer = session.run(body)
    if info.kind == "Node":
        titles, rows = _nodes([node for node in answer.nodes if name in {"", node.name}])
    else:
        pods = sorted(answer.pods, key=_order(sort_by)) if sort_by else list(answer.pods)
        titles, rows = _pods(pods, containers=containers, with_namespace=all_namespaces)
    if not rows:
        click.echo("No running pods found." if info.kind == "Pod" else "No such node runs pods here.", err=True)
        return
    for text in table.lines(titles, rows, headers=not no_headers):
        click.echo(text)


def _order(sort_by: str) -> Callable[[PodUsage], float]:
    def key(pod: PodUsage) -> float:
        total = _milli if sort_by == "cpu" else _memory_ki
        return -float(total(pod.containers))

    return key


def _pods(
    pods: Sequence[PodUsage], *, containers: bool, with_namespace: bool
) -> tuple[Sequence[str], list[Sequence[str]]]:
    titles = (
        *(("NAMESPACE",) if with_namespace else ()),
        *(("POD", "NAME") if containers else ("NAME",)),
        *_USE_TITLES,
    )
    rows: list[Sequence[str]] = []
    for pod in pods:
        head = (pod.namespace, pod.name) if with_namespace else (pod.name,)
        if containers:
            rows += [(*head, each.name, *_use([each])) for each in pod.containers]
        else:
            rows.append((*head, *_use(pod.containers), *_gpus(pod.gpus)))
    return titles if containers else (*titles, *_GPU_TITLES), rows


def _nodes(nodes: Sequence[NodeUsage]) -> tuple[Sequence[str], list[Sequence[str]]]:
    titles = ("NAME", "CPU(cores)", "CPU%", "MEMORY(bytes)", "MEMORY%", *_GPU_TITLES)
    rows: list[Sequence[str]] = [
        (
            node.name,
            node.cpu or UNKNOWN,
            _percent(_number(node.cpu), _number(node.cpu_capacity)),
            _mebibytes(_number(node.memory)),
            _percent(_number(node.memory), _number(node.memory_capacity)),
            *_gpus(node.gpus),
        )
        for node in nodes
    ]
    return titles, rows


def _use(containers: Sequence[ContainerUsage]) -> tuple[str, str, str]:
    known = all(each.cpu for each in containers)
    return (
        f"{_milli(containers)}m" if known else UNKNOWN,
        _mebibytes(_memory_ki(containers)),
        str(sum(each.process_count for each in containers)),
    )


def _gpus(gpus: Sequence[GpuUsage]) -> tuple[str, str, str]:
    if not gpus:
        return NONE, NONE, NONE
    known = [gpu.utilization_percent for gpu in gpus if gpu.HasField("utilization_percent")]
    used, capacity = sum(_number(gpu.memory) for gpu in gpus), sum(_number(gpu.memory_capacity) for gpu in gpus)
    return (
        ",".join(str(gpu.id) for gpu in gpus),
        f"{round(sum(known) / len(known))}%" if known else UNKNOWN,
        f"{_mebibytes(used)}/{_mebibytes(capacity)}",
    )


def _milli(containers: Sequence[ContainerUsage]) -> int:
    return sum(_number(each.cpu) for each in containers)


def _memory_ki(containers: Sequence[ContainerUsage]) -> int:
    return sum(_number(each.memory) for each in containers)


def _number(quantity: str) -> int:
    """Return the number in "250m" or "12345Ki", which is how the server writes them; 0 for none."""
    return int(quantity.rstrip("mKi") or 0)


def _mebibytes(kibibytes: int) -> str:
    return f"{round(kibibytes / _MIB_KI)}Mi"


def _percent(part: int, whole: int) -> str:
    return f"{round(100 * part / whole)}%" if whole else UNKNOWN
