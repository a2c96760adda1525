"""The kinds of resources: their names, their groups, and what can be done with them.

Kept free of gRPC, so that naming a kind costs nothing; `attribute` leads to the client's access to it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from grovectl.failures import Failure, usage

GROVE: Final = "grove.io/v1alpha1"
SCHEDULER: Final = "scheduler.grove.io/v1alpha1"
CORE: Final = "v1"
SCHEDULING: Final = "scheduling.k8s.io/v1"


class KindInfo(NamedTuple):
    """One kind; `attribute` is its name on GroveClient, `verbs` what its service offers besides list and watch."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    api_version: str
    is_namespaced: bool
    attribute: str
    verbs: tuple[str, ...]

    @property
    def resource(self) -> str:
        """The kind in lower case, as in "podclique/x created"."""
        return self.kind.lower()

    @property
    def qualified(self) -> str:
        """The kind with its group, as in "podclique.grove.io/x"; core kinds have none."""
        group, slash, _ = self.api_version.partition("/")
        return f"{self.resource}.{group}" if slash else self.resource


KINDS: Final = (
    KindInfo(
        "PodCliqueSet",
        "podcliquesets",
        ("pcs",),
        GROVE,
        is_namespaced=True,
        attribute="pod_clique_sets",
        verbs=("get", "apply", "delete", "scale"),
    ),
    KindInfo(
        "PodClique",
        "podcliques",
        ("pclq",),
        GROVE,
        is_namespaced=True,
        attribute="pod_cliques",
        verbs=("get", "scale"),
    ),
    KindInfo(
        "PodCliqueScalingGroup",
        "podcliquescalinggroups",
        ("pcsg",),
        GROVE,
        is_namespaced=True,
        attribute="pod_clique_scaling_groups",
        verbs=("get", "scale"),
    ),
    KindInfo(
        "PodGang",
        "podgangs",
        ("pg",),
        SCHEDULER,
        is_namespaced=True,
        attribute="pod_gangs",
        verbs=("get", "explain"),
    ),
    KindInfo("Pod", "pods", ("po",), CORE, is_namespaced=True, attribute="pods", verbs=("get", "delete")),
    KindInfo(
        "Node",
        "nodes",
        ("no",),
        CORE,
        is_namespaced=False,
        attribute="nodes",
        verbs=("get", "delete", "cordon"),
    ),
    KindInfo(
        "ClusterTopologyBinding",
        "clustertopologybindings",
        ("ct",),
        GROVE,
        is_namespaced=False,
        attribute="cluster_topology_bindings",
        verbs=("get", "apply", "delete"),
    ),
    KindInfo(
        "PriorityClass",
        "priorityclasses",
        ("pc",),
        SCHEDULING,
        is_namespaced=False,
        attribute="priority_classes",
        verbs=("get", "apply", "delete"),
    ),
    KindInfo(
        "Queue", "queues", ("q",), GROVE, is_namespaced=False, attribute="queues", verbs=("get", "apply", "delete")
    ),
    KindInfo(
        "ScalingPolicy",
        "scalingpolicies",
        ("sp",),
        GROVE,
        is_namespaced=True,
        attribute="scaling_policies",
        verbs=("get", "apply", "delete", "explain"),
    ),
    KindInfo("Event", "events", ("ev",), CORE, is_namespaced=True, attribute="events", verbs=()),
)


# What "all" stands for: a set and everything it is made of.
ALL: Final = ("pcs", "pclq", "pcsg", "pg", "po")


def _words() -> dict[str, KindInfo]:
    """Return every word that names a kind."""
    words: dict[str, KindInfo] = {}
    for info in KINDS:
        group = info.qualified.removeprefix(info.resource)
        for word in (info.resource, info.plural, *info.short_names):
            words[word] = info
            words[word + group] = info
    return words


_BY_WORD: Final = _words()


def find(word: str) -> KindInfo:
    """Return the kind that *word* names: kind, plural or short name, in any case, with or without its group."""
    info = _BY_WORD.get(word.lower())
    if info is None:
        raise usage(f'there is no kind "{word}"; see grovectl api-resources')
    return info


class Target(NamedTuple):
    """A kind and, unless all of it is meant, a name."""

    info: KindInfo
    name: str | None


def parse_targets(words: tuple[str, ...]) -> list[Target]:
    """Return what the arguments of a command name: `KIND[,KIND]`, `all`, `KIND NAME...` or `KIND/NAME...`."""
    if not words:
        raise usage("a kind is needed, for example: pcs; see grovectl api-resources")
    if "/" in words[0]:
        return [_slashed(word) for word in words]
    slashed = [word for word in words if "/" in word]
    if slashed:
        raise usage(f'"{slashed[0]}" cannot follow a kind; write all as KIND/NAME or all as KIND NAME...')
    if words[0] == "all" and len(words) > 1:
        raise usage("all takes no names")
    kinds = ALL if words[0] == "all" else words[0].split(",")
    infos = list(dict.fromkeys(find(word) for word in kinds if word))
    names: list[str | None] = list(dict.fromkeys(words[1:])) or [None]
    return [Target(info, name) for info in infos for name in names]


def named_targets(words: tuple[str, ...]) -> list[Target]:
    """Return the targets of a command that needs names."""
    targets = parse_targets(words)
    for target in targets:
        if target.name is None:
            raise usage(f"a name is needed after {words[0]}")
    return targets


def single_target(words: tuple[str, ...]) -> tuple[KindInfo, str]:
    """Return the one resource that a command is about."""
    targets = named_targets(words)
    if len(targets) != 1 or targets[0].name is None:
        raise usage("exactly one resource must be named")
    return targets[0].info, targets[0].name


# Why some kinds are not deleted by name.
_GONE_WITH: Final = {
    "PodClique": "it goes with its podcliqueset",
    "PodCliqueScalingGroup": "it goes with its podcliqueset",
    "PodGang": "it goes with its podcliqueset",
    "Event": "events go by themselves",
}


def must_offer(info: KindInfo, verb: str) -> None:
    """Refuse *verb* where the kind does not have it, and say what to do instead."""
    if verb in info.verbs:
        return
    instead = {
        "delete": _GONE_WITH.get(info.kind, ""),
        "scale": "it has no size; scalable are pcs, pclq and pcsg",
        "get": "it is not read by name; see grovectl events --for",
    }.get(verb, "")
    raise Failure(f"{info.resource}: no {verb}" + (f"; {instead}" if instead else ""), 2)


def _slashed(word: str) -> Target:
    kind, slash, name = word.partition("/")
    if not slash or not name or "/" in name:
        raise usage(f'"{word}" is not KIND/NAME')
    return Target(find(kind), name)
