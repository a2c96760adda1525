"""Every metric of the server, on one registry.

Rules: names carry their unit last; labels are bounded sets of words, never pods, uids or request ids. The only series
with object names are ``grove_clique_*`` and ``grove_group_*`` (namespace, set, template name), which a setting turns
off and which vanish with their set, and ``grove_queue_*``. ``docs/metrics.md`` lists them all; a test compares.

What is hot (RPCs, commits, lag) is kept as resolved children by its user, so that a count costs well under 1 µs.
Not here: collecting lag (``lag``), serving the page (``http``), series per replica (``replicas``).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from grove_server.resources.meta import Kind
from grove_server.telemetry.replicas import ReplicaSeries

REGISTRY: Final = CollectorRegistry(auto_describe=True)

# Calls take from 0.2 ms (a cached read) to seconds (a list of everything under load).
_CALL_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Fine around the promise (p99 of 20 ms), so that a quantile can be read from the buckets.
_LAG_BUCKETS_S: Final = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# One fsync: 0.1 ms on a good device, 30 ms on a spinning one, seconds on a dying one.
_DISK_BUCKETS_S: Final = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
# A decision is microseconds for a small gang and milliseconds for a thousand pods.
_PLAN_BUCKETS_S: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
# From creation to places: instant when there is room, hours when people wait for capacity.
_WAIT_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_COUNT_BUCKETS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)

_RPC_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")

RPC_STARTED: Final = Counter("grpc_server_started_total", "RPCs started on the server.", _RPC_LABELS, registry=REGISTRY)
RPC_HANDLED: Final = Counter(
    "grpc_server_handled_total",
    "RPCs completed on the server, whatever their outcome.",
    (*_RPC_LABELS, "grpc_code"),
    registry=REGISTRY,
)
RPC_SECONDS: Final = Histogram(
    "grpc_server_handling_seconds",
    "Time an RPC took in the server, until its last message was handed to the transport.",
    _RPC_LABELS,
    buckets=_CALL_BUCKETS_S,
    registry=REGISTRY,
)
RPC_RECEIVED: Final = Counter(
    "grpc_server_msg_received_total", "Messages received from clients.", _RPC_LABELS, registry=REGISTRY
)
RPC_SENT: Final = Counter("grpc_server_msg_sent_total", "Messages sent to clients.", _RPC_LABELS, registry=REGISTRY)
RPC_IN_FLIGHT: Final = Gauge("grove_rpc_in_flight", "RPCs being served, by class.", ("rpc_class",), registry=REGISTRY)
RPC_REJECTED: Final = Counter(
    "grove_rpc_rejected_total", "RPCs refused because their class was full.", ("rpc_class",), registry=REGISTRY
)
FORWARDED_CALLS: Final = Counter(
    "grove_forwarded_calls_total",
    "Calls handed on to the autoscaler that leads, by how they ended.",
    ("method", "outcome"),
    registry=REGISTRY,
)
AUTOSCALERS: Final = Gauge(
    "grove_autoscalers", "Autoscalers that are alive, by whether they lead.", ("state",), registry=REGISTRY
)
INTERNAL_ERRORS: Final = Counter(
    "grove_internal_errors_total", "Faults of the server itself, by where they surfaced.", ("where",), registry=REGISTRY
)

LOOP_LAG_SECONDS: Final = Histogram(
    "grove_event_loop_lag_seconds",
    "How late a timer of the event loop fired; samples missed during a long step are filled in.",
    buckets=_LAG_BUCKETS_S,
    registry=REGISTRY,
)

LOOP_LONG_STEPS: Final = Counter(
    "grove_event_loop_long_steps_total",
    "Steps of the event loop that took more than 10 ms, by the clock on the wall.",
    registry=REGISTRY,
)

STORE_COMMIT_SECONDS: Final = Histogram(
    "grove_store_commit_seconds",
    "From the decision on a commit until it was durable and visible.",
    buckets=_DISK_BUCKETS_S,
    registry=REGISTRY,
)
STORE_BATCH_SECONDS: Final = Histogram(
    "grove_store_batch_seconds",
    "One transaction with its fsync.",
    buckets=_DISK_BUCKETS_S,
    registry=REGISTRY,
)
STORE_BATCH_CHANGES: Final = Histogram(
    "grove_store_batch_changes", "Changes in one transaction.", buckets=_COUNT_BUCKETS, registry=REGISTRY
)
STORE_COMMITS: Final = Counter("grove_store_commits_total", "Commits made durable.", registry=REGISTRY)
STORE_CHANGES: Final = Counter("grove_store_changes_total", "Changes made durable.", registry=REGISTRY)
STORE_FSYNCS: Final = Counter("grove_store_fsyncs_total", "Transactions, each with one fsync.", registry=REGISTRY)
STORE_BYTES: Final = Counter("grove_store_written_bytes_total", "Bytes of rows written.", registry=REGISTRY)
STORE_DEGRADED: Final = Gauge(
    "grove_store_degraded", "1 while the store refuses changes (disk full or failing).", registry=REGISTRY
)
STORE_VERSION: Final = Gauge("grove_store_resource_version", "Version of the newest visible change.", registry=REGISTRY)
STORE_RESOURCES: Final = Gauge("grove_store_resources", "Resources in the store.", ("kind",), registry=REGISTRY)

WATCH_STREAMS: Final = Gauge("grove_watch_streams", "Watches open now.", registry=REGISTRY)
WATCH_LAG_SECONDS: Final = Histogram(
    "grove_watch_lag_seconds",
    "From waking a watch stream with a batch until the transport had it; one batch in 16 is timed.",
    buckets=_CALL_BUCKETS_S,
    registry=REGISTRY,
)
WATCH_ENDED: Final = Counter("grove_watch_ended_total", "Watches that ended, by cause.", ("cause",), registry=REGISTRY)

PENDING_GANGS: Final = Gauge(
    "grove_pending_gangs", "Gangs without places, by the reason they wait for.", ("reason",), registry=REGISTRY
)
PLACED_SECONDS: Final = Histogram(
    "grove_time_to_placed_seconds",
    "From the creation of a gang until its minimum had places.",
    buckets=_WAIT_BUCKETS_S,
    registry=REGISTRY,
)
PLAN_SECONDS: Final = Histogram(
    "grove_plan_duration_seconds", "One pass over one copy of a set.", buckets=_PLAN_BUCKETS_S, registry=REGISTRY
)
PLAN_ACTIONS: Final = Counter(
    "grove_plan_actions_total", "Changes that passes asked for.", ("action",), registry=REGISTRY
)
PLAN_REJECTED: Final = Counter(
    "grove_plan_rejected_total", "Passes whose changes were not made, by cause.", ("cause",), registry=REGISTRY
)
PODS_STOPPED: Final = Counter(
    "grove_pods_stopped_total", "Pods with a node that were asked to stop, by why.", ("reason",), registry=REGISTRY
)
GANG_TERMINATIONS: Final = Counter(
    "grove_gang_terminations_total", "Copies and group replicas that were recycled.", ("scope",), registry=REGISTRY
)
STUCK_PODS_REMOVED: Final = Counter(
    "grove_stuck_pods_removed_total", "Stopping pods removed because their node was not ready.", registry=REGISTRY
)
DRAINS: Final = Counter("grove_drains_total", "Drains of pods that ended, by how.", ("outcome",), registry=REGISTRY)
DRAIN_SECONDS: Final = Histogram(
    "grove_drain_seconds",
    "From telling routers to leave a pod until it was asked to stop.",
    buckets=_WAIT_BUCKETS_S,
    registry=REGISTRY,
)
LOADS_REPORTED: Final = Counter(
    "grove_loads_reported_total",
    "Loads of pods that routers reported, by what became of them.",
    ("outcome",),
    registry=REGISTRY,
)
PLACEMENT_SECONDS: Final = Histogram(
    "grove_placement_duration_seconds",
    "One placement decision for one gang.",
    ("outcome",),
    buckets=_PLAN_BUCKETS_S,
    registry=REGISTRY,
)
PREEMPTIONS: Final = Counter(
    "grove_preemptions_total", "Gangs that others had to leave for, by why.", ("reason",), registry=REGISTRY
)
PREEMPTION_VICTIMS: Final = Counter(
    "grove_preemption_victims_total",
    "Pods that had to leave for a gang, by whether single pods or whole gangs went.",
    ("kind",),
    registry=REGISTRY,
)
QUEUE_USED: Final = Gauge(
    "grove_queue_used",
    "What the gangs of a queue and of all below it hold: cores, bytes, or pieces.",
    ("queue", "resource"),
    registry=REGISTRY,
)
QUEUE_FAIR_SHARE: Final = Gauge(
    "grove_queue_fair_share",
    "What is due to a queue now: cores, bytes, or pieces.",
    ("queue", "resource"),
    registry=REGISTRY,
)
QUEUE_PENDING_GANGS: Final = Gauge(
    "grove_queue_pending_gangs", "Gangs without places, by queue.", ("queue",), registry=REGISTRY
)
SOLVER_QUESTIONS: Final = Counter(
    "grove_solver_questions_total",
    "Gangs that the exact solver was asked about, by outcome.",
    ("outcome",),
    registry=REGISTRY,
)
CONSOLIDATION_MOVES: Final = Counter(
    "grove_consolidation_moves_total", "Surplus pods that consolidation moved.", registry=REGISTRY
)
CONSOLIDATION_PLANS: Final = Counter(
    "grove_consolidation_plans_total",
    "Gangs in pieces of room that consolidation looked at, by what came of it.",
    ("outcome",),
    registry=REGISTRY,
)

CONTAINER_STARTS: Final = Counter(
    "grove_container_starts_total",
    "Containers that the process runtime tried to start, by what came of it.",
    ("outcome",),
    registry=REGISTRY,
)
CONTAINER_RESTARTS: Final = Counter(
    "grove_container_restarts_total", "Starts of containers after their first.", registry=REGISTRY
)
CONTAINER_ENDS: Final = Counter(
    "grove_container_ends_total",
    "Containers that ended, by the kubelet's word for how.",
    ("reason",),
    registry=REGISTRY,
)
PROBES: Final = Counter(
    "grove_probe_results_total", "Answers to probes of containers.", ("probe", "outcome"), registry=REGISTRY
)
PROBE_SECONDS: Final = Histogram(
    "grove_probe_duration_seconds",
    "One question to a container.",
    ("probe",),
    buckets=_CALL_BUCKETS_S,
    registry=REGISTRY,
)
HOOKS: Final = Counter(
    "grove_container_hooks_total", "Hooks of containers that ended.", ("hook", "outcome"), registry=REGISTRY
)
GPUS_OUT_OF_SERVICE: Final = Gauge(
    "grove_gpus_out_of_service", "GPUs of this machine that are not offered to pods.", registry=REGISTRY
)

STORY_RESOURCES: Final = Gauge("grove_story_resources", "Resources with a remembered story.", registry=REGISTRY)
STORY_TRANSITIONS: Final = Gauge("grove_story_transitions", "Transitions remembered in all stories.", registry=REGISTRY)
STORY_FORGOTTEN: Final = Counter(
    "grove_story_forgotten_total", "Stories forgotten because there were too many.", registry=REGISTRY
)
EVENTS_DROPPED: Final = Counter(
    "grove_events_dropped_total", "Events not recorded because too many waited to be written.", registry=REGISTRY
)
DUMPS: Final = Counter("grove_dumps_total", "Dumps taken, by how they ended.", ("outcome",), registry=REGISTRY)

CONTAINER_STREAMS: Final = Gauge(
    "grove_container_streams", "Readers of logs and commands beside containers now.", ("kind",), registry=REGISTRY
)

REPLICAS: Final = ReplicaSeries()
BUILD_INFO: Final = Gauge(
    "grove_build_info", "Always 1; the labels say what runs.", ("version", "commit", "python"), registry=REGISTRY
)

REGISTRY.register(REPLICAS)
ProcessCollector(registry=REGISTRY)


def show_build(version: str, commit: str) -> None:
    """Publish what runs."""
    BUILD_INFO.clear()
    BUILD_INFO.labels(version, commit, platform.python_version()).set(1)


def show_pending_gangs(counts: Mapping[str, int]) -> None:
    """Publish the number of waiting gangs per reason, all reasons at once: what is not named is gone."""
    PENDING_GANGS.clear()
    for reason, count in counts.items():
        PENDING_GANGS.labels(reason).set(count)


def show_queues(
    *,
    used: Mapping[str, Mapping[str, float]],
    fair: Mapping[str, Mapping[str, float]],
    pending: Mapping[str, int],
) -> None:
    """Publish how queues stand, all at once: what is not named is gone."""
    for gauge, shown in ((QUEUE_USED, used), (QUEUE_FAIR_SHARE, fair)):
        gauge.clear()
        for queue, amounts in shown.items():
            for resource, amount in amounts.items():
                gauge.labels(queue, resource).set(amount)
    QUEUE_PENDING_GANGS.clear()
    for queue in used:
        QUEUE_PENDING_GANGS.labels(queue).set(pending.get(queue, 0))


def show_store(version: int, counts: Mapping[Kind, int]) -> None:
    """Publish the store's version and sizes."""
    STORE_VERSION.set(version)
    for kind, count in counts.items():
        STORE_RESOURCES.labels(kind).set(count)
