"""Flagger: a Canary's analysis and its MetricTemplates become a RolloutPolicy, the rest a Model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from modelwright.cli.imports import artifacts, rollout_policies
from modelwright.cli.imports.fields import Fields, Json
from modelwright.cli.imports.foreign_objects import ForeignObject, ImportContext, Provider

_ROUTE_HINT = "is of the route: the Model makes its own, with hostname and path of spec.endpoint"
_HINTS = {
    "spec.provider": "what the gateway is, the operator reads from its GatewayClass",
    "spec.metricsServer": "the server is a connection in the operator's configuration, which the policy names "
    "(how-to: metrics)",
    "spec.provider.secretRef": "the server is a connection in the operator's configuration, with its "
    "credentials (how-to: metrics)",
    "spec.ingressRef": "Models are reached by a Gateway: name one with --gateway",
    "spec.routeRef": "the Model makes a route of its own: see spec.endpoint",
    "spec.upstreamRef": "Models are reached by a Gateway: name one with --gateway",
    "spec.autoscalerRef": "write what the autoscaler says into spec.serving.autoscaling of the Model",
    "spec.revertOnDeletion": "nothing that is made for a Model changes objects of others",
    "spec.service.port": "the Service of a Model has port 80",
    "spec.service.targetPort": "ports are the runtime's",
    "spec.service.portName": "ports are the runtime's",
    "spec.service.portDiscovery": "ports are the runtime's",
    "spec.service.appProtocol": "ports are the runtime's",
    "spec.service.name": "the Service of a Model has the Model's name",
    "spec.service.gateways": "Istio's own gateways aren't spoken to: name a Gateway of the Gateway API with --gateway",
    "spec.service": _ROUTE_HINT,
    "spec.analysis.alerts": "write alerts on the operator's metrics (how-to: watching)",
    "spec.analysis.stepWeightPromotion": "after the last step the candidate takes all requests, with the pods "
    "that it has",
    "spec.analysis.primaryReadyThreshold": "a step begins when all pods that it needs are ready",
    "spec.analysis.canaryReadyThreshold": "a step begins when all pods that it needs are ready",
    "cookieName": "the gateway names the cookie",
    "primaryCookieName": "the gateway names the cookie",
    "maxAge": "the cookie lasts for the session",
}
_HINTS |= {
    key.replace("spec.analysis", "spec.canaryAnalysis"): text
    for key, text in _HINTS.items()
    if key.startswith("spec.analysis")
}
_HOOKS = {
    "confirm-traffic-increase": "put an approval between the weights of the policy where a person has to agree",
    "pre-rollout": "what must pass before any request is a gate: spec.gates.infra sends the version's samples, "
    "spec.gates.evaluation runs a Job (how-to: gates)",
    "rollout": "requests of a load test aren't made here: run it beside, or shadow the callers' own requests by "
    "a mirror step",
    "post-rollout": "what follows a rollout can watch the ModelRollout: kubectl modelwright status --wait, or "
    "its Events",
    "rollback": "a person goes back by kubectl modelwright abort",
    "event": "Events and metrics of the operator say what happens (how-to: watching)",
}
_PERCENT_OK, _MILLISECONDS = "request-success-rate", "request-duration"

ExplainOmission = Callable[[str], None]


def _convert_canary(document: ForeignObject, context: ImportContext) -> Sequence[Json]:
    spec, name = document.spec, document.name
    model = _build_model(document, context)
    key = "analysis" if spec.value.get("analysis") else "canaryAnalysis"
    analysis = spec.child(key)
    if spec.flag("skipAnalysis"):
        spec.note("skipAnalysis", "without a RolloutPolicy a Model moves all at once, so none is made")
        spec.note(key, "has no effect beside skipAnalysis")
        return [model]
    interval = rollout_policies.read_duration(analysis, "interval") if "interval" in analysis else 60.0
    every = max(60.0 if interval is None else interval, 10.0)
    steps, gates = rollout_policies.StepsBuilder(), _read_hooks(analysis)
    strategy = _convert_strategy(analysis, steps, every, confirm="confirm-promotion" in gates)
    threshold = analysis.number("threshold")
    tolerated = max(1 if threshold is None else threshold, 1) - 1
    analysis.note(
        "threshold",
        "is the sum of all checks that fail; here each value has a failureLimit of its "
        "own, and shares "
        "of requests fail once, when it is proven",
    )
    progress = spec.number("progressDeadlineSeconds")
    spec.note(
        "progressDeadlineSeconds",
        "starts again with each sign of progress; spec.deadline of the policy is for "
        "the whole rollout, and has this time, twice the holds, and an hour for the evidence",
    )
    deadline = 2 * steps.total_hold_seconds + (600 if progress is None else max(progress, 1)) + 3600
    rest: Json = {
        "strategy": strategy,
        "deadline": rollout_policies.format_duration(min(deadline, rollout_policies.MAX_DURATION_SECONDS)),
    }
    if "confirm-rollout" in gates:
        rest["gates"] = {"approval": {"required": 1, "timeout": "720h"}}
    metrics = _convert_metrics(document, context, analysis, tolerated)
    policy = rollout_policies.build_decidable_policy(document, name, rest, metrics, every)
    model["spec"]["rolloutPolicyRef"] = {"name": name}
    return [policy, model]


def _build_model(document: ForeignObject, context: ImportContext) -> Json:
    """Build the Model of a Canary, whose artifact only its container knows."""
    spec, name = document.spec, document.name
    target = spec.child("targetRef")
    what = f"{target.text('kind', 'Deployment')} {target.text('name')}"
    target.note_here(
        f"which artifact {what} serves is written in no field: write ModelVersion {name}-1 with it, and a "
        "ModelRuntime of its "
        "container where none of the shipped ones will do"
    )
    target.take("apiVersion")
    service = spec.child("service")
    endpoint = context.options.build_endpoint(name)
    parents = [
        {key: each.text(key) for key in ("name", "namespace", "sectionName") if key in each}
        for each in service.children("gatewayRefs")
    ]
    if endpoint is None and parents:
        given = service.take("hosts")
        hosts = [str(host) for host in given] if isinstance(given, list) else []
        endpoint = {"parentRefs": parents, **({"hostnames": hosts} if hosts else {})}
    elif endpoint is not None:
        service.note("gatewayRefs", "--gateway is taken instead")
        service.note("hosts", "--domain is taken instead")
    else:
        document.note_object(
            "no endpoint, and shares of requests then follow from the number of pods: name a Gateway with --gateway"
        )
    wanted: Json = {"version": {"name": f"{name}-1"}, "endpoint": endpoint}
    length = rollout_policies.read_duration(service, "timeout") if "timeout" in service else None
    if length is not None:
        wanted["serving"] = {"maxRequestSeconds": min(max(round(length), 1), 86400)}
    if spec.flag("suspend"):
        wanted["suspend"] = True
    return artifacts.build_model(document, name, wanted)


def _read_hooks(analysis: Fields) -> set[str]:
    """Return the kinds of webhooks that become approvals; note the others."""
    found = set()
    for each in analysis.children("webhooks"):
        kind = each.text("type", "rollout")
        if kind in ("confirm-rollout", "confirm-promotion"):
            found.add(kind)
            each.note_all(f"{kind}, asked by a webhook, {rollout_policies.APPROVAL_NOTE}")
        else:
            each.note_all(f"{kind}: {_HOOKS.get(kind, 'webhooks have no place here')}")
    return found


def _convert_strategy(analysis: Fields, steps: rollout_policies.StepsBuilder, every: float, *, confirm: bool) -> Json:
    iterations, matches = analysis.number("iterations"), analysis.children("match")
    mirror, share = analysis.flag("mirror"), analysis.number("mirrorWeight")
    if mirror:
        steps.add_step(
            {
                "mirror": {
                    "percent": min(max(100 if share is None else share, 1), 100),
                    "hold": rollout_policies.format_duration(every),
                }
            }
        )
    elif share is not None:
        analysis.note("mirrorWeight", "has no effect without mirror")
    if matches:
        headers = _convert_headers(matches)
        if headers:
            steps.add_step(
                {
                    "match": {
                        "headers": headers,
                        "hold": rollout_policies.format_duration(every * max(iterations or 1, 1)),
                    }
                }
            )
    elif iterations:
        if not mirror:
            steps.set_weight(0)
        steps.add_hold(every * iterations)
    for key in ("maxWeight", "stepWeight", "stepWeights"):
        if (matches or iterations) and key in analysis:
            analysis.note(key, "has no effect, there as here: match or iterations say how it is moved")
    if not matches and not iterations:
        for weight in _read_weights(analysis):
            if steps.set_weight(weight):
                steps.add_hold(every)
    if confirm:
        steps.add_approval()
    if not steps.steps or iterations:
        steps.set_weight(100)
        steps.add_hold(every)
    affinity = {"sticky": True} if analysis.value.get("sessionAffinity") else {}
    if affinity and not any("weight" in step for step in steps.steps):
        affinity = {}
        analysis.note("sessionAffinity", "has no effect without weights")
    elif affinity:
        analysis.child("sessionAffinity").note_here(
            "becomes sticky: a caller stays with the candidate during the steps (Traefik)"
        )
    return {"steps": steps.limit_steps(analysis), **affinity}


def _read_weights(analysis: Fields) -> list[int]:
    given = analysis.take("stepWeights")
    most, step = analysis.number("maxWeight"), analysis.number("stepWeight")
    if isinstance(given, list) and given:
        for key in ("maxWeight", "stepWeight"):
            analysis.note(key, "has no effect beside stepWeights")
        found = [weight for weight in given if isinstance(weight, int) and not isinstance(weight, bool)]
        if len(found) != len(given) or found != sorted(set(found)):
            analysis.note("stepWeights", "only whole numbers that increase are taken")
        return found
    last = 100 if not most else min(max(most, 1), 100)
    size = min(max(step or 0, 0), 100)
    return list(range(size, last + 1, size)) if size else []


def _convert_headers(matches: Sequence[Fields]) -> list[Json]:
    for other in matches[1:]:
        other.note_all(
            "one or the other of several matches can't be said in one step: write a regular expression, or a "
            "step for each"
        )
    headers = matches[0].child("headers")
    found = []
    for name in headers.member_names():
        value = headers.child(name)
        exact, pattern, prefix = value.text("exact"), value.text("regex"), value.text("prefix")
        header = {"name": name, "value": exact or pattern or f"{re.escape(prefix)}.*"}
        found.append(header if exact else {**header, "type": "RegularExpression"})
    if not found:
        matches[0].note_all("names no headers: requests are chosen by headers only")
    return found


def _convert_metrics(
    document: ForeignObject, context: ImportContext, analysis: Fields, tolerated: int
) -> list[tuple[Json, ExplainOmission]]:
    found: list[tuple[Json, ExplainOmission]] = []
    for each in analysis.children("metrics"):
        metric = _convert_metric(document, context, each, tolerated)
        if metric is not None:
            found.append((metric, each.note_all))
    return found


def _convert_metric(document: ForeignObject, context: ImportContext, metric: Fields, tolerated: int) -> Json | None:
    name = metric.text("name")
    span = metric.child("thresholdRange")
    least, most = span.decimal("min"), span.decimal("max")
    old = metric.decimal("threshold")
    if least is None and most is None and old is not None:
        least, most = (old, None) if name in (_PERCENT_OK, "istio_requests_total") else (None, old)
    elif old is not None:
        metric.note("threshold", "has no effect beside thresholdRange")
    called = {"name": rollout_policies.metric_name(name)}
    asked = "templateRef" in metric or "query" in metric
    if not asked and name in (_PERCENT_OK, "istio_requests_total") and least is not None and 0 < least <= 100:
        metric.note("interval", "errors are counted from the beginning of each step")
        return {**called, "builtin": "error-rate", "max": rollout_policies.format_number(round(1 - least / 100, 6))}
    if (
        not asked
        and name in (_MILLISECONDS, "istio_request_duration_seconds_bucket")
        and most is not None
        and most >= 1
    ):
        metric.note("interval", "slow requests are counted from the beginning of each step")
        metric.note_here(
            f"99 of 100 requests within {rollout_policies.format_number(most)} ms becomes: at most 1 in "
            "100 more than of the "
            "serving version "
            f"are slower; {rollout_policies.format_number(most)}ms must be a boundary of the histogram's buckets"
        )
        return {**called, "builtin": "latency-over", "threshold": f"{round(most)}ms", "margin": "0.01"}
    query = _template_query(document, context, metric, name)
    if query is None:
        return None
    if least is None and most is None:
        metric.note_all("has no threshold, so it decides nothing: give it max or min")
        return None
    limits = ({"max": rollout_policies.format_number(most)} if most is not None else {}) | (
        {"min": rollout_policies.format_number(least)} if least is not None else {}
    )
    if "-canary" in query or "-primary" in query:
        metric.note_here(
            "its query names Flagger's objects (-canary, -primary), which aren't here: narrow it by $(PODS) or "
            "$(REVISION)"
        )
    if query.count("(") > 32 or len(query) > 4096:
        metric.note_all(
            "its query is longer, or has more brackets, than a policy may have: record it by a rule in Prometheus"
        )
        return None
    return {
        **called,
        "prometheus": {"query": query},
        **limits,
        **({"failureLimit": min(tolerated, 100)} if tolerated else {}),
    }


def _template_query(document: ForeignObject, context: ImportContext, metric: Fields, name: str) -> str | None:
    """Return the query of a metric with our placeholders; None, with a note, when there is none."""
    window = metric.text("interval", "1m")
    variables: dict[str, str] = {}
    if "templateRef" in metric:
        ref = metric.child("templateRef")
        called, namespace = ref.text("name"), ref.text("namespace", document.namespace)
        template = context.find_object("MetricTemplate", called, namespace)
        if template is None:
            metric.note_all(
                f"MetricTemplate {called} of namespace {namespace or 'default'} isn't among what is imported: "
                "give its file too, or write its query into spec.analysis of the policy"
            )
            return None
        template.part_of[f"RolloutPolicy {document.name}"] = None
        provider = template.spec.child("provider")
        kind = provider.text("type")
        provider.note(
            "address",
            "the server is a connection in the operator's configuration, which the policy names (how-to: metrics)",
        )
        if kind != "prometheus":
            template.spec.note("query", f"is a query of {kind}, which is no source of metrics here")
            metric.note_all(
                f"{kind} is no source of metrics here: read the figure from Prometheus, or from a server that "
                "answers in JSON (http)"
            )
            return None
        text = template.spec.text("query")
        if metric.value.get("templateVariables"):
            variables = metric.texts("templateVariables")
    elif "query" in metric:
        text = metric.text("query")
    else:
        metric.note_all(f"{name} is none of Flagger's own metrics with its limit: give it a query")
        return None
    known = {
        "namespace": "$(NAMESPACE)",
        "target": "$(MODEL)",
        "service": "$(MODEL)",
        "interval": window,
        **{f"variables.{key}": value for key, value in variables.items()},
    }
    query = re.sub(r"\{\{-?\s*\.?([A-Za-z_.-]+?)\s*-?\}\}", lambda found: known.get(found[1], found[0]), text)
    query = rollout_policies.single_line_query(query)
    missing = re.search(r"\{\{[^}]*\}\}", query)
    if missing:
        metric.note_all(
            f"{missing[0]} in its query has no value that is known here: write the metric with $(PODS) or "
            "another placeholder"
        )
        return None
    if not any(f"$({word})" in query for word in ("PODS", "REVISION", "VERSION")):
        metric.note_here(
            "its query tells no revision apart: narrow it to the candidate's pods by $(PODS), or to $(REVISION)"
        )
    return query


PROVIDER = Provider(
    name="flagger",
    title="Flagger",
    groups=("flagger.app",),
    resources=("canaries.flagger.app", "metrictemplates.flagger.app"),
    kinds={"Canary": _convert_canary},
    advice={"AlertProvider": "write alerts on the operator's metrics (how-to: watching)"},
    parts={"MetricTemplate": "no Canary that is imported names it: nothing to import"},
    hints=_HINTS,
)
