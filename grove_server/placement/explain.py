"""Says why a gang has no place."""

from __future__ import annotations

from grove_server.placement.cluster import Cluster
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import ScopeKind, Verdict, VerdictCode
from grove_server.placement.scopes import LevelUnknownError
from grove_server.placement.search import Search


def explain_failure(search: Search, request: GangRequest) -> Verdict:
    """Return the verdict of a failed search."""
    return Verdict(
        gang=request.name,
        code=VerdictCode.INSUFFICIENT_CAPACITY,
        proof=search.is_hopeless(search.root),
        kind=ScopeKind.GANG,
        scope=search.failed.name,
        pods_needed=search.root.pods_needed,
        level="",
        nodes_total=len(search.layout.slots),
        levels=(),
        exclusions=(),
        remedies=(),
        generation=search.cluster.generation,
    )


def explain_level(cluster: Cluster, request: GangRequest, error: LevelUnknownError) -> Verdict:
    """Return the verdict of a request whose level is not in its topology."""
    return Verdict(
        gang=request.name,
        code=VerdictCode.LEVEL_MISSING,
        proof=True,
        kind=error.scope.kind,
        scope=error.scope.name,
        pods_needed=0,
        level=error.level,
        nodes_total=0,
        levels=(),
        exclusions=(),
        remedies=(),
        generation=cluster.generation,
    )
