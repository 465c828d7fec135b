"""Defines the operator's own Prometheus metrics; `/metrics` serves REGISTRY. Alerts on them are in the chart."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

API_REQUESTS = Counter(
    "modelwright_api_requests_total",
    "Requests to the API server, by verb, kind and status code (0: no answer).",
    ["verb", "kind", "code"],
    registry=REGISTRY,
)
API_SECONDS = Histogram(
    "modelwright_api_request_duration_seconds",
    "Response time of requests to the API server, without the wait for the operator's rate limiter.",
    ["verb"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
API_LIMITER_SECONDS = Counter(
    "modelwright_api_limiter_wait_seconds_total",
    "Time that writes waited for the operator's rate limiter.",
    registry=REGISTRY,
)
WATCH_EVENTS = Counter(
    "modelwright_watch_events_total",
    "Watched events, by kind and outcome: kept, duplicate, stale.",
    ["kind", "outcome"],
    registry=REGISTRY,
)
WATCH_DIVERGENCE = Counter(
    "modelwright_watch_divergence_total",
    "Objects that differed from the store at a resync: the watch has lost an event.",
    ["kind"],
    registry=REGISTRY,
)
WATCH_GHOSTS = Counter(
    "modelwright_watch_stale_objects_total",
    "Objects that a resync removed from the store because the API server no longer has them.",
    ["kind"],
    registry=REGISTRY,
)
SWEEPS = Counter("modelwright_resyncs_total", "Resyncs, by result (ok, error).", ["result"], registry=REGISTRY)
STORE_OBJECTS = Gauge("modelwright_store_objects", "Objects in the store, by kind.", ["kind"], registry=REGISTRY)
STORE_BYTES = Gauge("modelwright_store_bytes", "Size of the objects in the store.", registry=REGISTRY)
STORE_TOO_LARGE = Gauge(
    "modelwright_store_too_large_objects",
    "Objects that are too large to be read, by kind: the store has only their metadata and status.",
    ["kind"],
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge("modelwright_queue_depth", "Keys that wait for a worker.", registry=REGISTRY)
QUEUE_LATENCY = Histogram(
    "modelwright_queue_latency_seconds",
    "Time from the request for a reconciliation to its start.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "modelwright_reconcile_duration_seconds",
    "Duration of a reconciliation.",
    ["kind"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
RECONCILES = Counter(
    "modelwright_reconcile_total", "Reconciliations, by kind and result.", ["kind", "result"], registry=REGISTRY
)
RECONCILE_PANICS = Counter(
    "modelwright_reconcile_panics_total",
    "Reconciliations, and readings of one child (Job, Pod, Metric ...), that ended in an unexpected exception.",
    ["kind"],
    registry=REGISTRY,
)
EVENTS_RECORDED = Counter(
    "modelwright_events_total",
    "Kubernetes Events, by outcome: sent, repeated (not sent again), dropped, failed.",
    ["outcome"],
    registry=REGISTRY,
)
LOOKS = Counter(
    "modelwright_measurements_total",
    "Measurements of rollouts' metrics, by outcome: measured, no data, or the reason of a failure.",
    ["outcome"],
    registry=REGISTRY,
)
LOOK_SECONDS = Histogram(
    "modelwright_measurement_duration_seconds",
    "Duration of one measurement of all metrics of a rollout that were due.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
TRIGGERS = Counter(
    "modelwright_triggers_total",
    "Triggers of RetrainingPolicies that fired, by kind and outcome: Started, or the reason why no run started.",
    ["trigger", "outcome"],
    registry=REGISTRY,
)
RUNS = Counter(
    "modelwright_training_runs_total",
    "TrainingRuns that ended, by state and reason.",
    ["state", "reason"],
    registry=REGISTRY,
)
HELD_ELSEWHERE = Gauge(
    "modelwright_namespaces_held_elsewhere",
    "Namespaces where this install would have work but another one works, by that install.",
    ["install"],
    registry=REGISTRY,
)
CLOCK_SKEW = Gauge(
    "modelwright_clock_skew_seconds",
    "By how many seconds the API server's clock is ahead of this node's (negative: behind).",
    registry=REGISTRY,
)
MISSING_RIGHTS = Gauge(
    "modelwright_missing_rights",
    "1 for each right that this process lacks according to the API server: verb, resource and namespace (empty: all).",
    ["verb", "resource", "namespace"],
    registry=REGISTRY,
)
LEADER = Gauge("modelwright_leader", "1 while this process holds the Lease.", registry=REGISTRY)
SHARD_NAMESPACES = Gauge(
    "modelwright_shard_namespaces",
    "Namespaces of each shard, counted by the leader of the shard `default`. Absent without shards.",
    ["shard"],
    registry=REGISTRY,
)
SHARD_LED = Gauge(
    "modelwright_shard_led",
    "Whether a shard has a leader, observed by the leader of the shard `default`. Absent without shards.",
    ["shard"],
    registry=REGISTRY,
)
LOOP_STAND = Gauge(
    "modelwright_event_loop_longest_block_seconds",
    "Longest time for which the event loop was blocked in the last one to two minutes, by clock: wall, or cpu, which "
    "counts only the CPU time of its thread.",
    ["clock"],
    registry=REGISTRY,
)
