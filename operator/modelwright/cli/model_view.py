"""A Model with its versions, rollouts, policies, runs and pods, built from the objects of its namespace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from modelwright.api import names
from modelwright.api.common import InvalidObject, Resource
from modelwright.api.conditions import is_true
from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.retraining import RetrainingPolicy
from modelwright.api.v1alpha1.rollout import ModelRollout
from modelwright.api.v1alpha1.training import TrainingRun
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.cli.user_error import UserError
from modelwright.core import versions
from modelwright.core.rollout.record import REVERTED_STATES

Json = Mapping[str, Any]
ResourceT = TypeVar("ResourceT", bound=Resource)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ObjectNotFound(UserError, LookupError):
    """The named object does not exist; the text lists existing ones."""


@dataclass(frozen=True, slots=True)
class ServingPod:
    """A pod of a serving revision."""

    name: str
    version: str
    ready: bool
    state: str
    restarts: int
    node: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """One Model; everything else is sorted newest first."""

    model: Model
    versions: tuple[ModelVersion, ...]
    rollouts: tuple[ModelRollout, ...]
    policies: tuple[RetrainingPolicy, ...]
    runs: tuple[TrainingRun, ...]
    pods: tuple[ServingPod, ...]

    @property
    def current_rollout(self) -> ModelRollout | None:
        """The current record: the one that the Model's status names, else the newest."""
        reference = self.model.status.rollout
        named = [r for r in self.rollouts if reference is not None and r.name == reference.name]
        return next(iter((*named, *self.rollouts)), None)

    def get_version(self, name: str) -> ModelVersion:
        """Raises ObjectNotFound."""
        return self._get_named(self.versions, name)

    def get_rollout(self, name: str) -> ModelRollout:
        """Raises ObjectNotFound."""
        return self._get_named(self.rollouts, name)

    def _get_named(self, candidates: Sequence[ResourceT], name: str) -> ResourceT:
        kind = type(candidates[0]).__name__ if candidates else "object"
        for candidate in candidates:
            if candidate.name == name:
                return candidate
        raise ObjectNotFound(
            f"Model {self.model.name} has no {kind} {name}; {_list_existing(o.name for o in candidates)}"
        )


def resolve_model_name(name: str, objects: Iterable[Json]) -> str:
    """Resolve a name to its Model: a Model, ModelRollout, ModelVersion, RetrainingPolicy, TrainingRun or pod of this
    name, in this order. Raises ObjectNotFound."""
    by_kind: dict[str, dict[str, Json]] = {}
    for obj in objects:
        by_kind.setdefault(obj["kind"], {})[obj["metadata"]["name"]] = obj
    if name in by_kind.get("Model", {}):
        return name
    for kind in ("ModelRollout", "ModelVersion", "RetrainingPolicy"):
        if name in by_kind.get(kind, {}):
            return str(by_kind[kind][name]["spec"]["modelRef"]["name"])
    if name in by_kind.get("TrainingRun", {}):
        run = by_kind["TrainingRun"][name]
        policy = by_kind.get("RetrainingPolicy", {}).get(str(run["spec"]["policyRef"]["name"]))
        model = (run.get("status") or {}).get("model") or (policy or {}).get("spec", {}).get("modelRef", {}).get("name")
        if model:
            return str(model)
    labels = (by_kind.get("Pod", {}).get(name, {}).get("metadata") or {}).get("labels") or {}
    if names.LABEL_MODEL in labels:
        return str(labels[names.LABEL_MODEL])
    raise ObjectNotFound(
        f"there is no Model {name} here, nor anything of that name that belongs to one; "
        f"{_list_existing(by_kind.get('Model', {}), 'Models')}"
    )


def build_view(name: str, objects: Iterable[Json]) -> ModelView:
    """Build the view of a Model, leaving out related objects that cannot be parsed. Raises ObjectNotFound, and
    InvalidObject for an unreadable Model."""
    listed = list(objects)
    raw = next((o for o in listed if o["kind"] == "Model" and o["metadata"]["name"] == name), None)
    if raw is None:
        there = (str(o["metadata"]["name"]) for o in listed if o["kind"] == "Model")
        raise ObjectNotFound(f"there is no Model {name} here; {_list_existing(there, 'Models')}")
    policies = [p for p in _parse_objects(RetrainingPolicy, listed) if p.spec.model_ref.name == name]
    trained_by = {policy.name for policy in policies}
    return ModelView(
        model=Model.parse(raw),
        versions=_newest_first(v for v in _parse_objects(ModelVersion, listed) if v.spec.model_ref.name == name),
        rollouts=_newest_first(r for r in _parse_objects(ModelRollout, listed) if r.spec.model_ref.name == name),
        policies=_newest_first(policies),
        runs=_newest_first(
            t
            for t in _parse_objects(TrainingRun, listed)
            if t.spec.policy_ref.name in trained_by or t.status.model == name
        ),
        pods=tuple(
            sorted((_parse_pod(o) for o in listed if _is_serving_pod(o, name)), key=lambda pod: (pod.version, pod.name))
        ),
    )


def move_result(view: ModelView) -> str | None:
    """Return how the rollout to the target version ended, for `status --wait`: promoted, failed, or None while it is
    running."""
    model, status = view.model, view.model.status
    if (status.observed_generation or 0) < model.generation:
        return None
    serving = status.serving
    wanted = versions.resolve_target(
        model.name,
        model.spec.version,
        view.versions,
        serving.version if serving is not None else None,
        serving.since if serving is not None else None,
    )
    if isinstance(wanted, ModelVersion) and (status.target is None or status.target.version != wanted.name):
        # A Model that follows its versions has not observed the newest one yet.
        return None
    if is_true(status.conditions, "Ready"):
        return "promoted"
    state = status.rollout.state if status.rollout is not None else None
    if is_true(status.conditions, "Stalled") or state in REVERTED_STATES:
        return "failed"
    return None


def format_age(since: datetime | None, now: datetime) -> str:
    """Format an age like kubectl: 45s, 12m, 3h, 9d; empty when unknown."""
    return "" if since is None else format_span(now - since)


def format_span(length: timedelta) -> str:
    """Format a length of time in its largest unit."""
    seconds = max(int(length.total_seconds()), 0)
    for unit, size, below in (("s", 1, 120), ("m", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < below:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def _parse_objects(kind: type[ResourceT], objects: Iterable[Json]) -> list[ResourceT]:
    parsed = []
    for obj in objects:
        if obj["kind"] == kind.__name__:
            try:
                parsed.append(kind.parse(obj))
            except InvalidObject:
                continue
    return parsed


def _newest_first(objects: Iterable[ResourceT]) -> tuple[ResourceT, ...]:
    return tuple(sorted(objects, key=lambda o: (o.metadata.creation_timestamp or _EPOCH, o.name), reverse=True))


def _is_serving_pod(obj: Json, model: str) -> bool:
    labels = (obj["metadata"].get("labels") or {}) if obj["kind"] == "Pod" else {}
    return labels.get(names.LABEL_MODEL) == model and labels.get(names.LABEL_ROLE) == names.ROLE_SERVING


def _parse_pod(obj: Json) -> ServingPod:
    status, metadata = obj.get("status") or {}, obj["metadata"]
    statuses = status.get("containerStatuses") or ()
    waiting = [(each.get("state") or {}).get("waiting", {}).get("reason") for each in statuses]
    state = "Terminating" if metadata.get("deletionTimestamp") else next(filter(None, waiting), status.get("phase"))
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    return ServingPod(
        name=metadata["name"],
        version=str(metadata["labels"].get(names.LABEL_VERSION, "")),
        ready=ready,
        state=str(state or "Pending"),
        restarts=sum(int(each.get("restartCount", 0)) for each in statuses),
        node=str((obj.get("spec") or {}).get("nodeName", "")),
    )


def _list_existing(names: Iterable[str], what: str = "") -> str:
    existing = sorted(names)
    if not existing:
        return f"there are no {what}" if what else "there are none"
    more = f" and {len(existing) - 10} more" if len(existing) > 10 else ""
    return f"there are {', '.join(existing[:10])}{more}"
