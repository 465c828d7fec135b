"""Defines the operator's own Prometheus metrics; `/metrics` serves REGISTRY."""

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
    "Time to answer of requests to the API server, waiting for our own limiter not counted.",
    ["verb"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
API_LIMITER_SECONDS = Counter(
    "modelwright_api_limiter_wait_seconds_total", "Time writes waited for our own limiter.", registry=REGISTRY
)
WATCH_EVENTS = Counter(
    "modelwright_watch_events_total",
    "Watched events by kind and what came of them: kept, duplicate, stale.",
    ["kind", "outcome"],
    registry=REGISTRY,
)
WATCH_DIVERGENCE = Counter(
    "modelwright_watch_divergence_total",
    "Objects that a sweep found differing from the store: the watch has lost something.",
    ["kind"],
    registry=REGISTRY,
)
WATCH_GHOSTS = Counter(
    "modelwright_watch_ghosts_total",
    "Objects dropped from the store by a sweep because they are gone from the API server.",
    ["kind"],
    registry=REGISTRY,
)
SWEEPS = Counter("modelwright_sweeps_total", "Resync sweeps, by result (ok, error).", ["result"], registry=REGISTRY)
STORE_OBJECTS = Gauge("modelwright_store_objects", "Objects in the store, by kind.", ["kind"], registry=REGISTRY)
STORE_BYTES = Gauge("modelwright_store_bytes", "Size of the objects in the store.", registry=REGISTRY)
STORE_TOO_LARGE = Gauge(
    "modelwright_store_too_large_objects",
    "Objects that are too large to be read, by kind: of these only metadata and status are kept.",
    ["kind"],
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge("modelwright_queue_depth", "Keys that wait for a worker.", registry=REGISTRY)
QUEUE_LATENCY = Histogram(
    "modelwright_queue_latency_seconds",
    "Time from the request for a pass to its start.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "modelwright_reconcile_duration_seconds", "Duration of a pass.", ["kind"], buckets=_SECONDS, registry=REGISTRY
)
RECONCILES = Counter(
    "modelwright_reconcile_total", "Passes, by kind and result.", ["kind", "result"], registry=REGISTRY
)
RECONCILE_PANICS = Counter(
    "modelwright_reconcile_panics_total",
    "Passes, and readings of one child (Job, Pod, Metric ...), that ended in an unexpected exception.",
    ["kind"],
    registry=REGISTRY,
)
EVENTS_RECORDED = Counter(
    "modelwright_events_total",
    "Kubernetes Events, by what became of them: sent, repeated (not sent again), dropped, failed.",
    ["outcome"],
    registry=REGISTRY,
)
LOOKS = Counter(
    "modelwright_looks_total",
    "Metrics looked at for rollouts, by outcome: measured, no data, or the reason of a failure.",
    ["outcome"],
    registry=REGISTRY,
)
LOOK_SECONDS = Histogram(
    "modelwright_look_duration_seconds",
    "Duration of a look at all metrics of a rollout that were due.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
TRIGGERS = Counter(
    "modelwright_triggers_total",
    "Triggers of RetrainingPolicies that fired, by kind, and outcome: Started, or the reason why no run began.",
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
    "Namespaces in which this install would have something to do, and another one works, by that install.",
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
    "1 for each right that the API server says this process lacks: verb, resource and namespace (empty: everywhere).",
    ["verb", "resource", "namespace"],
    registry=REGISTRY,
)
LEADER = Gauge("modelwright_leader", "1 while this process holds the Lease.", registry=REGISTRY)
SHARD_NAMESPACES = Gauge(
    "modelwright_shard_namespaces",
    "Namespaces of each shard, as the leader of the shard `default` counts them. Nothing without shards.",
    ["shard"],
    registry=REGISTRY,
)
SHARD_LED = Gauge(
    "modelwright_shard_led",
    "Whether a shard has a leader, as the leader of the shard `default` sees it. Nothing without shards.",
    ["shard"],
    registry=REGISTRY,
)
LOOP_STAND = Gauge(
    "modelwright_event_loop_longest_stand_seconds",
    "Longest time for which the event loop stood still in the last one to two minutes, by clock: wall, or cpu, which "
    "counts only the CPU time of its thread.",
    ["clock"],
    registry=REGISTRY,
)
