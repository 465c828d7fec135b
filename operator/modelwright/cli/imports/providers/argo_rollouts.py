"""Argo Rollouts: a Rollout's strategy and AnalysisTemplates become a RolloutPolicy, the rest a Model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from modelwright.cli.imports import artifacts, rollout_policies, serving_pods
from modelwright.cli.imports.fields import Fields, Json
from modelwright.cli.imports.foreign_objects import ForeignObject, ImportContext, Provider

_DEFAULT_DEADLINE = 600
"""Argo's default of progressDeadlineSeconds, in seconds."""
_ROUTE_HINT = "requests are moved by the Model's own route: name its Gateway in spec.endpoint, or with --gateway"
_SERVICE_HINT = "the Model has Services of its own; send callers to the one of its name"
_UNSUPPORTED_SOURCE = (
    "is no source of metrics here: read the figure from Prometheus, or from a server that answers in JSON (http)"
)
_HINTS = {
    "spec.selector": "pods are selected by the operator's own labels",
    "spec.workloadRef": "the pod of another workload isn't read: what it loads is a ModelVersion, its container "
    "a ModelRuntime",
    "spec.minReadySeconds": "a pod counts once the runtime answers that the model is ready",
    "spec.restartAt": "is spec.serving.restartedAt of the Model",
    "spec.progressDeadlineAbort": "the deadline here always takes the version back",
    "spec.analysis": "evidence is kept in the ModelRollout: see spec.historyLimit of the policy",
    "maxUnavailable": "what serves isn't made smaller before the other revision is ready",
    "canaryService": _SERVICE_HINT,
    "stableService": _SERVICE_HINT,
    "activeService": _SERVICE_HINT,
    "previewService": "a candidate's own address is in status.preview of the ModelRollout",
    "trafficRouting": _ROUTE_HINT,
    "previewReplicaCount": "a candidate runs at the size that its share of the requests needs",
    "dynamicStableScale": "what serves keeps its pods, so that going back is a switch",
    "abortScaleDownDelaySeconds": "after going back the candidate's pods are removed",
    "scaleDownDelayRevisionLimit": "of revisions that served before, one is kept, for spec.keepPrevious",
    "minPodsPerReplicaSet": "the candidate's size follows from its share",
    "pingPong": _SERVICE_HINT,
    "resourcePlugin": "plugins that make other pods have no place here",
    "imagePullPolicy": "is of the image: write it into the ModelRuntime",
    "readinessGates": "a pod counts once the runtime answers that the model is ready",
    "antiAffinity": "write it into spec.serving.podTemplate.spec.affinity of the Model",
    "canaryMetadata": "labels of pods are those of the Model's podTemplate, alike for all revisions",
    "stableMetadata": "labels of pods are those of the Model's podTemplate, alike for all revisions",
    "activeMetadata": "labels of pods are those of the Model's podTemplate, alike for all revisions",
    "previewMetadata": "labels of pods are those of the Model's podTemplate, alike for all revisions",
    "setCanaryScale": "a candidate is scaled to its share of the requests automatically",
    "experiment": "is no step here: candidate and serving revision are compared at each step; with "
    "analysis.baseline: Fresh new pods of the serving revision are",
    "plugin": "steps of plugins have no place here: a check before any request is a gate (how-to: gates), a "
    "later one a metric",
    "replicaProgressThreshold": "a step begins when all pods that it needs are ready",
    "startingStep": "metrics are measured from the first step on at which the candidate answers requests",
    "measurementRetention": "the record keeps the last and the deciding value of each metric and step",
    "consecutiveErrorLimit": "a metric that can't be read is tried again until the deadline",
    "consecutiveSuccessLimit": "a value has to be within its limits at each look, but for failureLimit",
    "inconclusiveLimit": "what decides nothing is waited for: see onInconclusive of the policy",
    "initialDelay": "a step is judged from its beginning on: give the step a longer hold",
    "count": "a metric is measured for as long as its step takes",
    "address": "the server is a connection in the operator's configuration, which the policy names (how-to: metrics)",
    "authentication": "the server is a connection in the operator's configuration, which the policy names "
    "(how-to: metrics)",
    "headers": "the server is a connection in the operator's configuration, which the policy names (how-to: metrics)",
    "insecure": "the server is a connection in the operator's configuration, which the policy names (how-to: metrics)",
    "timeout": "is that of the operator's connection",
    "timeoutSeconds": "is that of the operator's connection",
    "rangeQuery": "a query gives one number at each look",
    "livenessProbe": "probes are the runtime's: write them into the ModelRuntime",
    "readinessProbe": "probes are the runtime's: write them into the ModelRuntime",
    "startupProbe": "probes are the runtime's; how long a start may take is spec.serving.startTimeout",
    "lifecycle": "is the runtime's: write it into the ModelRuntime",
    "ports": "ports are the runtime's: write them into the ModelRuntime",
    "terminationGracePeriodSeconds": "follows from spec.serving.drainSeconds and maxRequestSeconds",
}

ExplainOmission = Callable[[str], None]


@dataclass
class _TemplateMetrics:
    """Metrics of a rollout's templates, each with a function that explains why it is left out."""

    metrics: list[tuple[Json, ExplainOmission]]
    intervals: list[float]

    @property
    def interval(self) -> float | None:
        return min(self.intervals, default=None)


def _convert_rollout(document: ForeignObject, context: ImportContext) -> Sequence[Json]:
    spec, name = document.spec, document.name
    strategy = spec.child("strategy")
    steps, evidence, more = rollout_policies.StepsBuilder(), _TemplateMetrics([], []), _retention_fields(document)
    if strategy.value.get("blueGreen"):
        strategy.note("canary", "has no effect beside blueGreen")
        shape = _convert_blue_green(document, context, strategy.child("blueGreen"), steps, evidence, more)
    else:
        shape = _convert_canary(document, context, strategy.child("canary"), steps, evidence, more)
    progress = spec.number("progressDeadlineSeconds")
    deadline = steps.total_hold_seconds + (_DEFAULT_DEADLINE if progress is None else max(progress, 1)) * max(
        len(steps.steps), 1
    )
    spec.note(
        "progressDeadlineSeconds",
        "starts again with each sign of progress; spec.deadline of the policy is for "
        "the whole rollout, and has this time for each step beside the holds",
    )
    rest = {"deadline": rollout_policies.format_duration(min(deadline, rollout_policies.MAX_DURATION_SECONDS)), **more}
    policy = rollout_policies.build_decidable_policy(
        document, name, {"strategy": shape, **rest}, evidence.metrics, evidence.interval
    )
    return [policy, _build_model(document, context)]


def _retention_fields(document: ForeignObject) -> Json:
    spec = document.spec
    window, kept = spec.child("rollbackWindow").number("revisions"), spec.number("revisionHistoryLimit")
    fields: Json = {}
    if window is not None:
        fields["rollbackWindow"] = min(max(window, 0), 10)
        if window > 10:
            spec.note("rollbackWindow", f"{window} is more than 10, which is the most")
    if kept is not None:
        fields["historyLimit"] = min(max(kept, 1), 100)
        if kept != fields["historyLimit"]:
            spec.note("revisionHistoryLimit", f"{kept} is taken as {fields['historyLimit']}: 1 to 100 records are kept")
    return fields


def _build_model(document: ForeignObject, context: ImportContext) -> Json:
    """Build the Model of a Rollout, whose artifact only its container knows."""
    spec, name = document.spec, document.name
    template = spec.child("template")
    pod = template.child("spec")
    containers = pod.children("containers")
    document.note_object(
        f"which artifact it serves is written in no field: write ModelVersion {name}-1 with it, and a "
        "ModelRuntime of the "
        "container where none of the shipped ones will do"
    )
    count = spec.number("replicas")
    scaling = serving_pods.convert_replicas(spec, "replicas", count, None)
    main = containers[0] if containers else None
    if main is not None:
        main.note("name", "the model's container is called model")
    pod_metadata = template.child("metadata")
    pod_metadata.note(
        "labels",
        "Services that select pods by them would select the Model's pods too: write those that "
        "nothing "
        "selects by into spec.serving.podTemplate.metadata.labels",
    )
    metadata = {"annotations": serving_pods.convert_labels(pod_metadata, "annotations")}
    serving = scaling | serving_pods.build_serving(
        serving_pods.convert_resources(main) if main else {},
        serving_pods.convert_pod_template(pod, main, tuple(containers[1:])),
        metadata,
    )
    if account := pod.text("serviceAccountName"):
        pod.note("serviceAccountName", f"write {account} into spec.artifact.serviceAccountName of the ModelVersion")
    endpoint = context.options.build_endpoint(name)
    if endpoint is None:
        document.note_object("no endpoint: callers reach the Service of the Model; name a Gateway with --gateway")
    wanted: Json = {
        "version": {"name": f"{name}-1"},
        "serving": serving,
        "endpoint": endpoint,
        "rolloutPolicyRef": {"name": name},
    }
    if spec.flag("paused"):
        wanted["suspend"] = True
    return artifacts.build_model(
        document, name, wanted, serving_pods.convert_labels(document.fields.child("metadata"), "labels")
    )


def _convert_canary(
    document: ForeignObject,
    context: ImportContext,
    canary: Fields,
    steps: rollout_policies.StepsBuilder,
    evidence: _TemplateMetrics,
    more: Json,
) -> Json:
    _convert_delay(canary, more)
    surge = canary.take("maxSurge")
    if isinstance(surge, int) and not isinstance(surge, bool) and 1 <= surge <= 1000:
        more["surge"] = {"pods": surge}
    else:
        canary.note(
            "maxSurge", "a share of the pods is no bound here: write a number into spec.surge.pods of the policy"
        )
    if "analysis" in canary:
        _read_templates(document, context, canary.child("analysis"), evidence)
    for step in canary.children("steps"):
        _convert_step(document, context, step, steps, evidence)
    if not steps.steps:
        canary.note_here("without steps it is a rolling update: the preset Rolling")
        return {"preset": "Rolling"}
    return {"steps": steps.limit_steps(canary)}


def _convert_delay(part: Fields, more: Json) -> None:
    delay = part.number("scaleDownDelaySeconds")
    if delay is not None:
        more["keepPrevious"] = rollout_policies.format_duration(
            min(max(delay, 0), rollout_policies.MAX_DURATION_SECONDS)
        )


def _convert_step(
    document: ForeignObject,
    context: ImportContext,
    step: Fields,
    steps: rollout_policies.StepsBuilder,
    evidence: _TemplateMetrics,
) -> None:
    if "setWeight" in step:
        weight = step.number("setWeight") or 0
        if weight == 100 and not steps.steps:
            steps.set_weight(weight)
        elif weight != steps.weight and not steps.set_weight(weight):
            step.note("setWeight", f"{weight} isn't more than the weight before: weights only increase here")
    elif "pause" in step or "pause" in step.value:
        pause = step.child("pause")
        length = rollout_policies.read_duration(pause, "duration") if "duration" in pause else None
        if length is not None:
            steps.add_hold(length)
        elif "duration" not in pause:
            steps.add_approval()
            step.note("pause", f"for a person {rollout_policies.APPROVAL_NOTE}")
    elif "analysis" in step:
        length = _read_templates(document, context, step.child("analysis"), evidence)
        step.child("analysis").note_here(
            "its metrics are measured in all steps at which the candidate answers requests"
        )
        if steps.steps:
            steps.add_hold(length)
    elif "setHeaderRoute" in step:
        _convert_match(step.child("setHeaderRoute"), steps)
    elif "setMirrorRoute" in step:
        _convert_mirror(step.child("setMirrorRoute"), steps)


def _convert_match(route: Fields, steps: rollout_policies.StepsBuilder) -> None:
    route.note("name", "the Model's route is its own")
    headers = []
    for each in route.children("match"):
        value = each.child("headerValue")
        exact, pattern, prefix = value.text("exact"), value.text("regex"), value.text("prefix")
        header = {"name": each.text("headerName"), "value": exact or pattern or f"{re.escape(prefix)}.*"}
        headers.append(header if exact else {**header, "type": "RegularExpression"})
    if headers:
        steps.add_step({"match": {"headers": headers}})
    else:
        route.note_all("the match ends with the next weight automatically")


def _convert_mirror(route: Fields, steps: rollout_policies.StepsBuilder) -> None:
    route.note("name", "the Model's route is its own")
    route.note("match", "copies are made of all requests, and of no choice of them")
    percent = route.number("percentage")
    if "match" in route or percent is not None:
        steps.add_step({"mirror": {"percent": min(max(100 if percent is None else percent, 1), 100)}})
    else:
        route.note_all("copying ends with the next weight automatically")


def _convert_blue_green(
    document: ForeignObject,
    context: ImportContext,
    part: Fields,
    steps: rollout_policies.StepsBuilder,
    evidence: _TemplateMetrics,
    more: Json,
) -> Json:
    _convert_delay(part, more)
    steps.set_weight(0)
    automatic, wait = part.flag("autoPromotionEnabled", True), part.number("autoPromotionSeconds")
    if wait and not automatic:
        part.note("autoPromotionSeconds", "has no effect, there as here: a person promotes")
    if "prePromotionAnalysis" in part:
        before = part.child("prePromotionAnalysis")
        length = _read_templates(document, context, before, evidence)
        before.note_here(
            "nothing is judged before the candidate has requests: its metrics are measured after the "
            "switch, and "
            "what must pass before is a gate (how-to: gates)"
        )
        steps.add_hold(length)
    if automatic and wait:
        steps.add_hold(wait)
    if not automatic:
        steps.add_approval()
        part.note("autoPromotionEnabled", f"promotion by a person {rollout_policies.APPROVAL_NOTE}")
    steps.set_weight(100)
    if "postPromotionAnalysis" in part:
        steps.add_hold(_read_templates(document, context, part.child("postPromotionAnalysis"), evidence))
    elif evidence.metrics:
        steps.add_hold(120)
    return {"steps": steps.limit_steps(part)}


def _read_templates(
    document: ForeignObject, context: ImportContext, analysis: Fields, evidence: _TemplateMetrics
) -> float:
    """Read the metrics of an analysis' templates; return the seconds that they take by their counts."""
    given = {each.text("name"): each for each in analysis.children("args")}
    dry = [each.text("metricName") for each in analysis.children("dryRun")]
    templates: list[ForeignObject] = []
    longest = 0.0
    for each in analysis.children("templates"):
        kind = "ClusterAnalysisTemplate" if each.flag("clusterScope") else "AnalysisTemplate"
        template_name = each.text("templateName")
        namespace = None if kind.startswith("Cluster") else document.namespace
        template = context.find_object(kind, template_name, namespace)
        if template is None:
            each.note(
                "templateName",
                f"{kind} {template_name} isn't among what is imported: give its file too, or write its "
                "metrics into spec.analysis of the policy",
            )
            continue
        templates.append(template)
        template.part_of[f"RolloutPolicy {document.name}"] = None
        longest = max(longest, _read_template(template, given, dry, evidence))
    for name, each in given.items():
        if "valueFrom" in each:
            each.note("valueFrom", f"argument {name}: use $(PODS), $(REVISION), $(MODEL) or $(NAMESPACE) in the query")
        elif not any(f"args.{name}" in str(template.spec.value.get("metrics")) for template in templates):
            each.note_all("is used by no metric of the templates that are imported")
    return longest


def _read_template(
    template: ForeignObject, given: dict[str, Fields], dry: Sequence[str], evidence: _TemplateMetrics
) -> float:
    spec = template.spec
    values = {each.text("name"): each.text("value") for each in spec.children("args") if "value" in each}
    for each in spec.children("args"):
        if f"args.{each.text('name')}" not in str(spec.value.get("metrics")):
            each.note_all("is used by no metric")
        elif each.text("name") in given and "value" in given[each.text("name")]:
            each.note("value", "a Rollout gives another value")
    values |= {name: each.text("value") for name, each in given.items() if "value" in each}
    dry = [*dry, *(each.text("metricName") for each in spec.children("dryRun"))]
    longest = 0.0
    for written in spec.children("metrics"):
        each = Fields(_fill_arguments(written.value, values), written.path, written.ledger)
        interval, count = (
            rollout_policies.read_duration(each, "interval"),
            each.number("count") if _has_count(each) else None,
        )
        each.note("count", "says how long a step of its analysis takes; in the background each step has its own time")
        if interval is not None:
            evidence.intervals.append(interval)
            longest = max(longest, interval * (count or 1))
        converted = _convert_metric(each)
        if converted is not None:
            if any(re.fullmatch(pattern, each.text("name")) for pattern in _valid_patterns(dry)):
                converted["dryRun"] = True
            evidence.metrics.append((converted, each.note_all))
    return longest


def _has_count(metric: Fields) -> bool:
    return re.fullmatch(r"[0-9]{1,6}", str(metric.value.get("count", ""))) is not None


def _valid_patterns(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        try:
            re.compile(text)
        except re.error:
            continue
        yield text


def _convert_metric(metric: Fields) -> Json | None:
    """Convert a metric of a template; None, with a note, when that is impossible."""
    provider = metric.child("provider")
    name = rollout_policies.metric_name(metric.text("name"))
    kind = next(iter(provider.member_names()), "")
    if kind == "job":
        metric.note_all(
            "a Job's exit code is no figure: have it report one by the result contract, and write the metric with job"
        )
        return None
    source = (
        _convert_prometheus(provider) if kind == "prometheus" else _convert_web(provider) if kind == "web" else None
    )
    if source is None:
        metric.note_all(f"{kind or 'its provider'} {_UNSUPPORTED_SOURCE}")
        return None
    if isinstance(source, str):
        metric.note_all(source)
        return None
    limits = _convert_limits(metric)
    if limits is None:
        metric.note_all(
            "its condition is no limit of one number, as result >= 0.95 is: write the query so that it gives "
            "one, and max or min"
        )
        return None
    limit = metric.number("failureLimit")
    if limit is not None and limit < 0:
        return {"name": name, **source, **limits, "dryRun": True}
    return {"name": name, **source, **limits, **({"failureLimit": min(limit, 100)} if limit else {})}


def _convert_limits(metric: Fields) -> Json | None:
    good, bad = metric.text("successCondition"), metric.text("failureCondition")
    if good:
        metric.note(
            "failureCondition", "what is neither one nor the other fails here: the limits are those of successCondition"
        )
        return rollout_policies.parse_limits(good)
    return rollout_policies.invert_limit(bad) if bad else None


def _fill_arguments(value: Any, values: dict[str, str]) -> Any:
    """Fill in the known arguments."""
    if isinstance(value, str):
        return re.sub(r"\{\{\s*args\.([^}\s]+)\s*\}\}", lambda match: values.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {key: _fill_arguments(member, values) for key, member in value.items()}
    return [_fill_arguments(member, values) for member in value] if isinstance(value, list) else value


def _convert_prometheus(provider: Fields) -> Json | str:
    query = rollout_policies.single_line_query(provider.child("prometheus").text("query"))
    missing = re.search(r"\{\{[^}]*\}\}", query)
    if missing:
        return (
            f"{missing[0]} in its query has no value that is known here: write the metric with $(PODS) or "
            "another placeholder"
        )
    if not any(f"$({word})" in query for word in ("PODS", "REVISION", "VERSION")):
        provider.child("prometheus").note_here(
            "its query tells no revision apart: narrow it to the candidate's pods by $(PODS), or to $(REVISION)"
        )
    return {"prometheus": {"query": query}}


def _convert_web(provider: Fields) -> Json | str:
    web = provider.child("web")
    parts = urlsplit(web.text("url"))
    path = re.fullmatch(r"\{\s*\$?((?:\.[A-Za-z0-9_-]+|\[[0-9]+\])*)\s*\}", web.text("jsonPath", "{$}"))
    if web.text("method", "GET") != "GET" or "body" in web or "jsonBody" in web:
        return "only GET is asked: have a server answer it by GET"
    if path is None or not parts.hostname:
        return "its jsonPath is no plain path to one number, or its url has no host: write the metric with http"
    pointer = "".join(f"/{key}" for key in re.findall(r"[A-Za-z0-9_-]+", path[1]))
    name = rollout_policies.metric_name(parts.hostname)
    web.note_here(
        f"{parts.scheme}://{parts.netloc} has to be the connection {name} in the operator's configuration "
        "(how-to: metrics)"
    )
    query = f"?{parts.query}" if parts.query else ""
    return {"http": {"provider": name, "path": f"{parts.path or '/'}{query}", "value": pointer}}


PROVIDER = Provider(
    name="argo-rollouts",
    title="Argo Rollouts",
    groups=("argoproj.io",),
    resources=("rollouts.argoproj.io", "analysistemplates.argoproj.io", "clusteranalysistemplates.argoproj.io"),
    kinds={"Rollout": _convert_rollout},
    advice={
        "Experiment": "pods for a comparison come and go with a rollout here: spec.analysis of a RolloutPolicy, with "
        "baseline: Fresh for new pods of both",
        "AnalysisRun": "is the record of an analysis: the one of a rollout is its ModelRollout",
    },
    parts=dict.fromkeys(
        ("AnalysisTemplate", "ClusterAnalysisTemplate"), "no Rollout that is imported names it: nothing to import"
    ),
    hints=_HINTS,
)
