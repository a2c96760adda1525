"""The store's observer: what the store reports becomes metrics, and a warning when it stops taking changes."""

from __future__ import annotations

from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

_log = get_logger("store")


class StoreReport:
    """Implements the store's ``StoreObserver``; called on the event loop, so each call is a few counts."""

    def batch_durable(
        self,
        *,
        commits: int,
        changes: int,
        rows: int,  # noqa: ARG002 -- the protocol's name; rows and changes differ only for repeated keys
        payload_bytes: int,
        duration_s: float,
    ) -> None:
        """Count one transaction."""
        metrics.STORE_FSYNCS.inc()
        metrics.STORE_COMMITS.inc(commits)
        metrics.STORE_CHANGES.inc(changes)
        metrics.STORE_BYTES.inc(payload_bytes)
        metrics.STORE_BATCH_CHANGES.observe(changes)
        metrics.STORE_BATCH_SECONDS.observe(duration_s)

    def commit_visible(
        self,
        *,
        cause: str,  # noqa: ARG002 -- the protocol's name; causes are for traces, not for labels
        changes: int,  # noqa: ARG002 -- counted per batch already
        latency_s: float,
    ) -> None:
        """Time one commit."""
        metrics.STORE_COMMIT_SECONDS.observe(latency_s)

    def degraded(self, reason: str) -> None:
        """Show and say that changes are refused."""
        metrics.STORE_DEGRADED.set(1)
        _log.error("store_degraded", reason=reason)

    def recovered(self) -> None:
        """Show and say that changes are accepted again."""
        metrics.STORE_DEGRADED.set(0)
        _log.info("store_recovered")

    def watches(self, open_count: int) -> None:
        """Show the number of open watches."""
        metrics.WATCH_STREAMS.set(open_count)

    def watch_too_slow(self) -> None:
        """Do nothing: the stream that ends counts its cause itself."""
