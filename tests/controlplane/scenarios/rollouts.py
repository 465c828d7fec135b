"""How Models with a RolloutPolicy move: each strategy, evidence, people, clocks, and what peers get wrong."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelwright.api import names
from modelwright.kube import kinds
from tests.controlplane.scenarios import Object, Space, scenario
from tests.lib import objects
from tests.lib.api import NAMESPACE, Refused, eventually
from tests.lib.kstatus import conditions, current, is_ready

COUNTERS = 'requests_total{namespace="$(NAMESPACE)",version="$(VERSION)"'
ERRORS = {
    "name": "errors",
    "prometheus": {"bad": COUNTERS + ',result="bad"}', "total": COUNTERS + "}"},
    "margin": "0.05",
    "minSamples": 100,
}
LONG_ERRORS: Object = ERRORS | {
    "prometheus": {"bad": COUNTERS + " " * 4005 + ',result="bad"}', "total": COUNTERS + " " * 4020 + "}"},
}
"""The same in so many bytes that a policy with it is stored apart."""
SCORE = {"name": "score", "prometheus": {"query": 'score{namespace="$(NAMESPACE)",version="$(VERSION)"}'}, "max": "0.5"}
FROZEN_ROUTES: tuple[Object, Object] = (
    {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "frozen-routes"},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": ["gateway.networking.k8s.io"],
                        "apiVersions": ["*"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["httproutes"],
                    }
                ],
                "namespaceSelector": {"matchLabels": {"frozen-routes": "true"}},
            },
            "validations": [{"expression": "false", "message": "routes are frozen", "reason": "Forbidden"}],
        },
    },
    {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "frozen-routes"},
        "spec": {"policyName": "frozen-routes", "validationActions": ["Deny"]},
    },
)
"""Refuse every write of a route in namespaces with a label: a router that fails for good."""
SERVING = {"replicas": 2, "maxRequestSeconds": 1}
"""Of a Model whose rollouts are quick: no step with metrics passes before its longest request has ended."""
QUICK = [{"weight": 10, "hold": "1s"}, {"weight": 50, "hold": "1s"}, {"weight": 100}]
ENDED = ("Succeeded", "RolledBack", "Aborted", "Superseded")
HUGE = {"resources": {"requests": {"cpu": "100000"}}}


def policy(space: Space, steps: Any = None, metrics: Any = None, **spec: Any) -> Object:
    """The policy `careful` of this namespace; quick steps unless told otherwise."""
    whole: Object = {"strategy": {"steps": steps or QUICK}, "keepPrevious": "1s", **spec}
    if metrics is not None:
        whole["analysis"] = {"interval": "1s", "metrics": metrics}
    metadata = {"name": "careful", "namespace": space.namespace}
    return {"apiVersion": objects.API_VERSION, "kind": "RolloutPolicy", "metadata": metadata, "spec": whole}


def long_policy(space: Space) -> Object:
    """One that records don't hold themselves."""
    return policy(space, metrics=[LONG_ERRORS])


def led(space: Space, version: str, **spec: Any) -> Object:
    """A Model of two pods behind the played gateway, led by the policy."""
    spec = {"serving": SERVING, "endpoint": objects.endpoint(space.namespace), **spec}
    spec = {key: value for key, value in spec.items() if value is not None}
    return space.model(version=version, rolloutPolicyRef={"name": "careful"}, **spec)


async def set_up(space: Space, versions: int = 2) -> None:
    """Versions v1 to vN that answer well, and the gateway."""
    await space.gateway.set_up(space.namespace)
    for number in range(1, versions + 1):
        space.metrics.answers(space.namespace, f"v{number}")
        await space.apply(space.version(f"v{number}"))


async def begin(space: Space, careful: Object, *, versions: int = 2, **spec: Any) -> Object:
    """Versions v1 to vN that answer well, and a Model that serves v1 by the policy."""
    await set_up(space, versions)
    await space.apply(careful, led(space, "v1", **spec))
    return await space.ready(version="v1")


async def records(space: Space) -> list[Object]:
    """The ModelRollouts of this namespace, oldest first."""
    found = await space.api.list(kinds.MODEL_ROLLOUT, space.namespace)
    return sorted(found, key=lambda r: (r["metadata"]["creationTimestamp"], r["spec"].get("number", 0)))


async def newest(space: Space, version: str) -> Object | None:
    """The last ModelRollout to this version."""
    found = [record for record in await records(space) if record["spec"]["target"]["version"] == version]
    return found[-1] if found else None


async def record(space: Space, version: str, *states: str, reason: str = "", step: int | None = None) -> Object:
    """The last ModelRollout to this version, once it is in one of these states (for this reason, at this step)."""

    def good(seen: Object | None) -> bool:
        status = (seen or {}).get("status", {})
        fits = status.get("state") in states and (not reason or status.get("reason") == reason)
        return fits and (step is None or status.get("step") == step)

    found: Object = await eventually(
        lambda: newest(space, version), good, f"{space.namespace}: a rollout to {version} {states} {reason} {step}"
    )
    return found


async def tell(space: Space, rollout: Object, name: str, token: str = "1") -> Object:
    """Give a command, and wait until it was taken up."""
    command = {"name": name, "token": f"{name}-{token}", "by": "admin", "reason": "the test wants it"}
    where = rollout["metadata"]["name"]
    await space.api.patch(kinds.MODEL_ROLLOUT, space.namespace, where, {"spec": {"command": command}})

    def taken(seen: Object) -> bool:
        return any(c["token"] == command["token"] for c in seen["status"].get("commands", ()))

    return await space.until(kinds.MODEL_ROLLOUT, where, taken, f"the command {name} was taken up")


def back_by_hand(space: Space, version: str) -> Object:
    """A person's rollback."""
    spec = {
        "modelRef": {"name": "digits"},
        "target": {"version": version},
        "rollback": {"by": "admin", "reason": "customers complain"},
    }
    metadata = {"name": f"back-to-{version}", "namespace": space.namespace}
    return {"apiVersion": objects.API_VERSION, "kind": "ModelRollout", "metadata": metadata, "spec": spec}


def weights(route: Object) -> dict[str, int]:
    """Percent by revision hash, of the rule that has no header match."""
    found: dict[str, int] = {}
    for rule in route["spec"]["rules"]:
        if not any("headers" in match for match in rule.get("matches", ())):
            for backend in rule["backendRefs"]:
                found[backend["name"].rpartition("-")[2]] = backend.get("weight", 1)
    total = sum(found.values()) or 1
    return {key: round(100 * weight / total) for key, weight in found.items() if weight}


async def pods(space: Space, version: str) -> dict[str, str]:
    """uid -> name of the serving pods of a version that are not on their way out."""
    labels = f"{names.LABEL_MODEL}=digits,{names.LABEL_ROLE}=serving,{names.LABEL_VERSION}={version}"
    found = await space.api.list(kinds.POD, space.namespace, labels)
    return {p["metadata"]["uid"]: p["metadata"]["name"] for p in found if not p["metadata"].get("deletionTimestamp")}


def revision(record_: Object) -> str:
    """Hash of the candidate."""
    found: str = record_["status"]["to"]["revision"]
    return found


@contextlib.asynccontextmanager
async def watched(space: Space, kind: Any) -> AsyncIterator[list[Object]]:
    """Every state of the objects of a kind in this namespace, as it happens."""
    seen: list[Object] = []
    began = asyncio.Event()

    async def watch() -> None:
        async for _, obj in space.api.watch(kind, began):
            if obj["metadata"]["namespace"] == space.namespace:
                seen.append(obj)

    task = asyncio.create_task(watch())
    await began.wait()
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _path(seen: list[Object], candidate: str) -> list[int]:
    """The candidate's weights in the order they were set, each once."""
    found: list[int] = []
    for route in seen:
        weight = weights(route).get(candidate, 0)
        if not found or found[-1] != weight:
            found.append(weight)
    return found


@scenario
async def a_canary_by_time_alone_goes_step_by_step_on_the_same_pods(space: Space) -> None:
    # Flagger's first hole: the new version is loaded a second time at promotion.
    await begin(space, policy(space))
    before = await pods(space, "v1")
    async with watched(space, kinds.HTTP_ROUTE) as seen:
        await space.apply(led(space, "v2"))
        half = await record(space, "v2", "Progressing", "Promoting", "Succeeded", step=1)
        canaries = await pods(space, "v2")
        assert len(canaries) == 1
        assert set(await pods(space, "v1")) == set(before)
        ended = await record(space, "v2", "Succeeded")
    assert half["metadata"]["uid"] == ended["metadata"]["uid"]
    assert _path(seen, revision(ended)) == [10, 50, 100]
    assert set(canaries) <= set(await pods(space, "v2"))
    status = ended["status"]
    assert status["reason"] == "Promoted"
    assert [(s["index"], s["weight"]) for s in status["steps"]] == [(0, 10), (1, 50), (2, 100)]
    assert {s["outcome"] for s in status["steps"]} == {"Pass"}
    assert status["from"]["version"] == "v1"
    assert status["to"]["version"] == "v2"
    assert status["policy"]["name"] == "careful"
    await space.ready(version="v2", replicas=2)
    await space.only(kinds.DEPLOYMENT, 1)
    assert set(canaries) <= set(await pods(space, "v2"))


@scenario
async def a_canary_with_evidence_writes_its_numbers_down(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS]))
    await space.apply(led(space, "v2"))
    ended = await record(space, "v2", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("Succeeded", "Promoted")
    verdicts = {v["step"]: v for v in ended["status"]["verdicts"]}
    assert {0, 1} <= verdicts.keys()
    for step in (0, 1):
        assert verdicts[step]["outcome"] == "Pass"
        assert verdicts[step]["samples"] >= 100
        assert verdicts[step]["servingSamples"] >= 100
        assert verdicts[step]["high"]


@scenario
async def a_long_policy_is_stored_once_and_nobody_can_change_it(space: Space) -> None:
    await begin(space, long_policy(space))
    await space.apply(led(space, "v2"))
    ended = await record(space, "v2", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("Succeeded", "Promoted")
    told = [found["status"]["policy"] for found in await records(space)]
    assert [(policy["spec"], policy["storedIn"]) for policy in told] == [({}, told[0]["storedIn"])] * 2
    kept = await space.get(kinds.CONTROLLER_REVISION, told[0]["storedIn"])
    assert kept["data"]["spec"]["analysis"]["metrics"][0]["prometheus"].items() >= LONG_ERRORS["prometheus"].items()
    change = {"data": {"spec": {"deadline": "720h"}}}
    with pytest.raises(Refused, match="immutable"):
        await space.api.patch(kinds.CONTROLLER_REVISION, space.namespace, told[0]["storedIn"], change)


@scenario
async def a_candidate_that_fails_is_rolled_back_and_not_tried_again_until_a_person_says_so(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS]))
    before = await pods(space, "v1")
    space.metrics.answers(space.namespace, "v2", bad=0.3)
    await space.apply(led(space, "v2"))
    ended = await record(space, "v2", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("RolledBack", "AnalysisFailed")
    deciding = [v for v in ended["status"]["verdicts"] if v["outcome"] == "Fail"]
    assert [v["metric"] for v in deciding] == ["errors"]
    await space.stalls("AnalysisFailed")
    assert set(await pods(space, "v1")) == set(before)
    await space.only(kinds.DEPLOYMENT, 1)
    version = await space.until(kinds.MODEL_VERSION, "v2", lambda v: v["status"].get("stage") == "Quarantined", "stage")
    assert conditions(version)["Ready"]["status"] == "True"
    # Edits of how many and of the policy never release it.
    three = led(space, "v2", serving=SERVING | {"replicas": 3})
    await space.apply(policy(space, metrics=[ERRORS], deadline="2h"), three)
    await space.stalls("AnalysisFailed")
    assert len([r for r in await records(space) if r["spec"]["target"]["version"] == "v2"]) == 1
    space.metrics.answers(space.namespace, "v2", bad=0.0)
    await tell(space, ended, "retry")
    await space.ready(version="v2", replicas=3)
    again = await record(space, "v2", "Succeeded")
    assert again["metadata"]["uid"] != ended["metadata"]["uid"]


@scenario
async def a_quarantined_version_is_tried_again_after_another_was_wanted(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS]))
    space.metrics.answers(space.namespace, "v2", bad=0.3)
    await space.apply(led(space, "v2"))
    await record(space, "v2", "RolledBack")
    await space.apply(led(space, "v1"))
    await space.ready(version="v1")
    space.metrics.answers(space.namespace, "v2", bad=0.0)
    await space.apply(led(space, "v2"))
    await space.ready(version="v2")


@scenario
async def without_a_single_measurement_nothing_is_promoted_and_the_deadline_ends_it(space: Space) -> None:
    # Argo's first hole: a run that is ended before its first measurement is Successful there.
    await begin(space, policy(space, metrics=[ERRORS], deadline="25s"))
    del space.metrics.versions[space.namespace, "v2"]
    async with watched(space, kinds.HTTP_ROUTE) as seen:
        await space.apply(led(space, "v2"))
        holding = await record(space, "v2", "Holding")
        assert holding["status"]["reason"] == "InsufficientEvidence"
        assert holding["status"]["step"] == 0
        ended = await record(space, "v2", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("Aborted", "Inconclusive")
    assert set(_path(seen, revision(ended))) == {0, 10}
    assert {v["outcome"] for v in ended["status"].get("verdicts", ())} <= {"Inconclusive"}
    model = await space.stalls("Inconclusive")
    assert model["status"]["serving"]["version"] == "v1"
    assert "stage" not in (await space.get(kinds.MODEL_VERSION, "v2")).get("status", {}), "nothing was found against it"


@scenario
async def too_few_requests_are_no_evidence_and_may_roll_back(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS], onInconclusive="Rollback"))
    space.metrics.answers(space.namespace, "v2", rate=1)
    await space.apply(led(space, "v2"))
    ended = await record(space, "v2", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("Aborted", "Inconclusive")


@scenario
async def a_metrics_server_that_fails_is_an_error_and_the_rollout_goes_on_when_it_is_back(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS]))
    space.metrics.faults[space.namespace] = "unavailable"
    await space.apply(led(space, "v2"))
    holding = await record(space, "v2", "Holding", reason="AnalysisError")
    assert "503" in holding["status"]["message"]
    del space.metrics.faults[space.namespace]
    await record(space, "v2", "Succeeded")


@scenario
async def odd_answers_of_a_query_are_never_a_pass(space: Space) -> None:
    await begin(space, policy(space, metrics=[SCORE], steps=[{"weight": 10, "hold": "1s"}, {"weight": 100}]))
    await space.apply(led(space, "v2"))
    for odd, says in (([], "no data"), ([float("nan")], "nan"), ([0.1, 0.2], "2 or more series")):
        space.metrics.scores[space.namespace, "v2"] = odd

        def told(seen: Object | None, says: str = says) -> bool:
            verdicts = (seen or {}).get("status", {}).get("verdicts", [])
            return any(v["outcome"] == "Inconclusive" and says in v["message"].lower() for v in verdicts)

        await eventually(lambda: newest(space, "v2"), told, f"Inconclusive: {says}")
    space.metrics.faults[space.namespace] = "syntax"
    await eventually(
        lambda: newest(space, "v2"),
        lambda seen: any("parse error" in v["message"] for v in (seen or {})["status"]["verdicts"]),
        "Error: parse error",
    )
    assert (await newest(space, "v2") or {})["status"]["state"] not in ENDED
    del space.metrics.faults[space.namespace]
    space.metrics.scores[space.namespace, "v2"] = [0.1]
    await record(space, "v2", "Succeeded")


@scenario
async def a_value_out_of_its_limits_is_let_pass_as_often_as_the_policy_says(space: Space) -> None:
    metrics = [{**SCORE, "failureLimit": 2}]
    await begin(space, policy(space, metrics=metrics, steps=[{"weight": 10, "hold": "2s"}, {"weight": 100}]))
    space.metrics.scores[space.namespace, "v2"] = [0.9]
    await space.apply(led(space, "v2"))
    ended = await record(space, "v2", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("RolledBack", "AnalysisFailed")
    (verdict,) = ended["status"]["verdicts"]
    assert verdict["outcome"] == "Fail"
    assert verdict["failures"] == 3


@scenario
async def a_dry_run_metric_is_reported_and_decides_nothing(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS, {**SCORE, "dryRun": True}]))
    space.metrics.scores[space.namespace, "v2"] = [0.9]
    await space.apply(led(space, "v2"))
    ended = await record(space, "v2", *ENDED)
    assert ended["status"]["state"] == "Succeeded"
    dry = [v for v in ended["status"]["verdicts"] if v["metric"] == "score"]
    assert {(v["outcome"], v["dryRun"]) for v in dry} == {("Fail", True)}


@scenario
async def while_every_write_of_the_route_fails_a_person_can_abort(space: Space) -> None:
    # Argo's second hole (argo-rollouts#4626): a router that fails keeps abort and deadline from running.
    await begin(space, policy(space, steps=[{"weight": 10, "hold": "3s"}, {"weight": 50, "hold": "1h"}]))
    await space.apply(led(space, "v2"))
    await space.until(kinds.HTTP_ROUTE, "digits", lambda route: len(weights(route)) == 2, "at 10 %")
    await refuse_routes(space, refuse=True)
    rollout = await record(space, "v2", "Progressing", step=1)
    await space.until(kinds.MODEL, "digits", _names_the_refusal, "says what is refused")
    await tell(space, rollout, "abort")
    turning = await record(space, "v2", "RollingBack")
    assert turning["status"]["ending"] == "Aborted"
    await space.until(kinds.MODEL, "digits", _names_the_refusal, "says what is refused")
    await refuse_routes(space, refuse=False)
    ended = await record(space, "v2", "Aborted")
    assert weights(await space.child(kinds.HTTP_ROUTE)) == {ended["status"]["from"]["revision"]: 100}
    await space.stalls("AbortedByCommand")


@scenario
async def while_every_write_of_the_route_fails_the_deadline_still_ends_it(space: Space) -> None:
    # Argo's second hole, with nobody there to abort.
    await begin(space, policy(space, deadline="20s"))
    await refuse_routes(space, refuse=True)
    await space.apply(led(space, "v2"))
    await space.until(kinds.MODEL, "digits", _names_the_refusal, "says what is refused")
    ended = await record(space, "v2", "Aborted")
    assert ended["status"]["reason"] == "DeadlineExceeded"
    model = await space.stalls("DeadlineExceeded")
    assert model["status"]["serving"]["version"] == "v1"
    await refuse_routes(space, refuse=False)
    await tell(space, ended, "retry")
    await record(space, "v2", "Succeeded")


def _names_the_refusal(model: Object) -> bool:
    return current(model) and "routes are frozen" in conditions(model)["Stalled"].get("message", "")


async def refuse_routes(space: Space, *, refuse: bool) -> None:
    """Have the API server refuse every write of a route in this namespace, or no more."""
    label = {"metadata": {"labels": {"frozen-routes": "true" if refuse else None}}}
    await space.api.patch(NAMESPACE, None, space.namespace, label)


@scenario
async def going_back_soon_after_promotion_is_a_switch(space: Space) -> None:
    # Flagger's second hole: after promotion there is no way back but another rollout.
    await begin(space, policy(space, keepPrevious="1h"))
    before = await pods(space, "v1")
    await space.apply(led(space, "v2"))
    await record(space, "v2", "Succeeded")
    await space.ready(version="v2")
    assert set(await pods(space, "v1")) == set(before)
    async with watched(space, kinds.HTTP_ROUTE) as seen:
        await space.apply(led(space, "v1"))
        back = await record(space, "v1", "Succeeded", reason="FastRollback")
    assert back["status"].get("steps", []) == []
    assert _path(seen, revision(back))[-1] == 100
    assert len(_path(seen, revision(back))) == 1
    assert set(await pods(space, "v1")) == set(before)
    await space.ready(version="v1")


@scenario
async def outside_of_the_window_going_back_is_a_rollout_like_any_other(space: Space) -> None:
    await begin(space, policy(space, rollbackWindow=0))
    await space.apply(led(space, "v2"))
    await space.ready(version="v2")
    await space.apply(led(space, "v1"))
    back = await record(space, "v1", "Succeeded", reason="Promoted")
    assert [s["weight"] for s in back["status"]["steps"]] == [10, 50, 100]


@scenario
async def the_previous_revision_is_kept_as_long_as_the_policy_says(space: Space) -> None:
    await begin(space, policy(space, keepPrevious="6s"))
    await space.apply(led(space, "v2"))
    await record(space, "v2", "Succeeded")
    await space.ready(version="v2")
    assert len(await space.children(kinds.DEPLOYMENT)) == 2
    await space.only(kinds.DEPLOYMENT, 1)


@scenario
async def blue_green_shows_a_preview_then_switches_at_once_and_can_switch_back(space: Space) -> None:
    steps = [{"weight": 0, "hold": "3s"}, {"weight": 100, "hold": "1s"}]
    await begin(space, policy(space, steps=steps, keepPrevious="1h"))
    async with watched(space, kinds.HTTP_ROUTE) as seen:
        await space.apply(led(space, "v2"))
        previewed = await record(space, "v2", "Progressing", step=0)
        previewed = await space.until(
            kinds.MODEL_ROLLOUT, previewed["metadata"]["name"], lambda r: r["status"].get("preview"), "a preview"
        )
        assert revision(previewed) in previewed["status"]["preview"]
        ended = await record(space, "v2", "Succeeded")
    assert [weight for weight in _path(seen, revision(ended)) if weight] == [100]
    assert len(await pods(space, "v2")) == 2
    assert len(await pods(space, "v1")) == 2
    await space.apply(led(space, "v1"))
    await record(space, "v1", "Succeeded", reason="FastRollback")


@scenario
async def rolling_without_a_gateway_moves_pods_instead_of_weights(space: Space) -> None:
    alone: Any = {"endpoint": None, "serving": {"replicas": 4}}
    steps = [{"weight": 25, "hold": "1s"}, {"weight": 50, "hold": "1s"}, {"weight": 75, "hold": "1s"}, {"weight": 100}]
    await begin(space, policy(space, steps=steps), **alone)
    async with watched(space, kinds.DEPLOYMENT) as seen:
        await space.apply(led(space, "v2", **alone))
        ended = await record(space, "v2", "Succeeded")
    assert [s["weight"] for s in ended["status"]["steps"]] == [25, 50, 75, 100]
    candidate = f"digits-{revision(ended)}"
    asked = [d["spec"]["replicas"] for d in seen if d["metadata"]["name"] == candidate]
    assert asked == sorted(asked), "the candidate's pods only grow"
    assert asked[-1] == 4
    selector = (await space.get(kinds.SERVICE, "digits"))["spec"]["selector"]
    assert selector[names.LABEL_REVISION] == revision(ended)
    await space.only(kinds.DEPLOYMENT, 1)


@scenario
async def recreate_stops_the_old_revision_first_and_starts_it_again_when_the_new_one_fails(space: Space) -> None:
    careful = policy(space)
    careful["spec"]["strategy"] = {"recreate": {"timeout": "25s"}}
    await begin(space, careful)
    async with watched(space, kinds.DEPLOYMENT) as seen:
        await space.apply(led(space, "v2"))
        ended = await record(space, "v2", "Succeeded")
    old = f"digits-{ended['status']['from']['revision']}"
    stopped = next(n for n, d in enumerate(seen) if d["metadata"]["name"] == old and d["spec"]["replicas"] == 0)
    started = next(n for n, d in enumerate(seen) if d["metadata"]["name"] != old and d["spec"]["replicas"])
    assert stopped < started
    await space.ready(version="v2", replicas=2)
    await space.apply(
        objects.runtime("huge", "huge", namespace=space.namespace, container=HUGE),
        space.version("v3", fmt="huge"),
        led(space, "v3"),
    )
    failed = await record(space, "v3", *ENDED)
    assert (failed["status"]["state"], failed["status"]["reason"]) == ("Aborted", "StartTimeout")
    model = await space.stalls("StartTimeout")
    assert model["status"]["serving"]["version"] == "v2"
    assert len(await pods(space, "v2")) == 2
    await space.only(kinds.DEPLOYMENT, 1)


@scenario
async def a_newer_target_supersedes_and_there_is_never_a_third_set_of_pods(space: Space) -> None:
    steps = [{"weight": 10, "hold": "1s"}, {"weight": 50, "hold": "5s"}, {"weight": 100}]
    await begin(space, policy(space, steps=steps), versions=3)
    before = await pods(space, "v1")
    async with watched(space, kinds.POD) as seen:
        await space.apply(led(space, "v2"))
        await record(space, "v2", "Progressing", step=1)
        await space.apply(led(space, "v3"))
        first = await record(space, "v2", "Superseded")
        last = await record(space, "v3", "Succeeded")
    assert last["status"]["from"]["version"] == "v1", "the fallback is what serves, never a candidate"
    assert first["spec"]["number"] < last["spec"]["number"]
    assert not _three_at_once(seen, set(before))
    await space.ready(version="v3")
    version = await space.api.get(kinds.MODEL_VERSION, space.namespace, "v2")
    assert version is not None
    assert "stage" not in version["status"], "superseded is not quarantined"


def _three_at_once(seen: list[Object], begin_with: set[str]) -> bool:
    """Whether pods of three revisions were there at one moment, none of them on its way out."""
    alive: dict[str, str] = dict.fromkeys(begin_with, "v1")
    for pod in seen:
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            alive.pop(metadata["uid"], None)
        else:
            alive[metadata["uid"]] = metadata["labels"].get(names.LABEL_VERSION, "")
        if len(set(alive.values())) > 2:
            return True
    return False


@scenario
async def a_person_pauses_resumes_and_aborts(space: Space) -> None:
    await begin(
        space, policy(space, steps=[{"weight": 10, "hold": "2s"}, {"weight": 50, "hold": "1h"}], deadline="30s")
    )
    await space.apply(led(space, "v2"))
    rollout = await record(space, "v2", "Progressing", step=0)
    await tell(space, rollout, "pause")
    paused = await record(space, "v2", "Holding", reason="Paused")
    assert paused["status"]["paused"] is True
    assert "runningSince" not in paused["status"]["clock"], "the deadline's clock stands still"
    await asyncio.sleep(3)
    assert (await newest(space, "v2") or {})["status"]["step"] == 0
    await tell(space, rollout, "resume")
    await record(space, "v2", "Progressing", step=1)
    # A command is carried out once for each token, however often it is applied.
    again = {"metadata": {"labels": {"touched": "true"}}}
    await space.api.patch(kinds.MODEL_ROLLOUT, space.namespace, rollout["metadata"]["name"], again)
    await tell(space, rollout, "abort")
    ended = await record(space, "v2", "Aborted")
    assert [(c["name"], c["by"], c["accepted"]) for c in ended["status"]["commands"]] == [
        ("pause", "admin", True),
        ("resume", "admin", True),
        ("abort", "admin", True),
    ]
    model = await space.stalls("AbortedByCommand")
    assert model["status"]["serving"]["version"] == "v1"
    assert weights(await space.child(kinds.HTTP_ROUTE)) == {ended["status"]["from"]["revision"]: 100}


@scenario
async def a_person_may_promote_without_evidence_and_that_is_written_down(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS]))
    del space.metrics.versions[space.namespace, "v2"]
    await space.apply(led(space, "v2"))
    rollout = await record(space, "v2", "Holding", reason="InsufficientEvidence")
    await tell(space, rollout, "promote")
    ended = await record(space, "v2", "Succeeded")
    assert ended["status"]["reason"] == "PromotedWithoutEvidence"
    assert ended["status"]["withoutEvidence"] is True
    await space.ready(version="v2")


@scenario
async def a_command_that_makes_no_sense_now_is_refused_and_says_why(space: Space) -> None:
    await begin(space, policy(space))
    await space.apply(led(space, "v2"))
    await space.ready(version="v2")
    rollout = await record(space, "v2", "Succeeded")
    told = await tell(space, rollout, "abort")
    (command,) = told["status"]["commands"]
    assert command["accepted"] is False
    assert command["message"]
    await space.ready(version="v2")


@scenario
async def a_rollback_by_hand_holds_until_it_is_released(space: Space) -> None:
    await begin(space, policy(space))
    await space.apply(led(space, "v2"))
    await space.ready(version="v2")
    await space.only(kinds.DEPLOYMENT, 1)
    await space.apply(back_by_hand(space, "v1"))
    held = await record(space, "v1", "Succeeded", reason="RolledBackByHand")
    model = await space.until(kinds.MODEL, "digits", is_held, "held by the rollback")
    assert model["status"]["serving"]["version"] == "v1"
    # The same manifests again and again never end it.
    for _ in range(3):
        await space.apply(led(space, "v2"))
    await space.pass_over()
    await space.until(kinds.MODEL, "digits", is_held, "still held")
    await tell(space, held, "release")
    await space.ready(version="v2")


@scenario
async def a_rollback_by_hand_ends_when_another_version_is_wanted(space: Space) -> None:
    await begin(space, policy(space), versions=3)
    await space.apply(led(space, "v2"))
    await space.ready(version="v2")
    await space.apply(back_by_hand(space, "v1"))
    await space.until(kinds.MODEL, "digits", is_held, "held by the rollback")
    await space.apply(led(space, "v3"))
    await space.ready(version="v3")


def is_held(model: Object) -> bool:
    """A person's rollback holds the Model."""
    ready = conditions(model).get("Ready", {})
    return current(model) and ready.get("status") == "False" and ready.get("reason") == "HeldByRollback"


@scenario
async def a_freeze_holds_a_rollout_up_and_never_a_way_back(space: Space) -> None:
    frozen = [{"schedule": "* * * * *", "duration": "2m"}]
    await begin(space, policy(space))
    await space.apply(
        policy(space, freeze=frozen, steps=[{"weight": 10, "hold": "1h"}, {"weight": 100}]), led(space, "v2")
    )
    rollout = await record(space, "v2", "Pending", reason="FreezeWindow")
    assert "resume" in rollout["status"]["message"]
    assert await pods(space, "v2") == {}
    await tell(space, rollout, "resume")
    going = await record(space, "v2", "Progressing", step=0)
    assert going["status"]["freezeOverridden"] is True
    await tell(space, rollout, "abort")
    await record(space, "v2", "Aborted")


def approval(space: Space, rollout: Object, decision: str = "Approve") -> Object:
    """The administrator's word on a rollout."""
    spec = {
        "modelRef": {"name": "digits"},
        "rollout": {"name": rollout["metadata"]["name"], "uid": rollout["metadata"]["uid"]},
        "contentHash": rollout["status"]["contentHash"],
        "decision": decision,
        "approver": "admin",
        "reason": "looked at it",
    }
    metadata = {"name": f"{rollout['metadata']['name']}-{decision.lower()}", "namespace": space.namespace}
    return {"apiVersion": objects.API_VERSION, "kind": "Approval", "metadata": metadata, "spec": spec}


def by_alice(space: Space, name: str) -> Object:
    """A version with an author who is not the administrator."""
    version = space.version(name)
    version["spec"]["author"] = "alice"
    return version


APPROVED = [{"weight": 10, "hold": "1s"}, {"approval": {"timeout": "10m"}}, {"weight": 100}]


@scenario
async def a_step_waits_for_a_person_who_is_not_the_author(space: Space) -> None:
    await begin(space, policy(space, steps=APPROVED), versions=1)
    await space.apply(by_alice(space, "v2"), led(space, "v2"))
    waiting = await record(space, "v2", "AwaitingApproval")
    assert "runningSince" not in waiting["status"]["clock"]
    await space.waits("AwaitingApproval")
    await space.apply(approval(space, waiting))
    ended = await record(space, "v2", "Succeeded")
    assert [(a["approver"], a["decision"]) for a in ended["status"]["approvals"]] == [("admin", "Approve")]
    # The author's own word, and one for a version without an author, don't count.
    own = space.version("v3")
    own["spec"]["author"] = "admin"
    await space.apply(own, led(space, "v3"))
    waiting = await record(space, "v3", "AwaitingApproval")
    await space.apply(approval(space, waiting))
    await space.pass_over()
    assert (await record(space, "v3", "AwaitingApproval"))["status"].get("approvals", []) == []


@scenario
async def a_person_who_rejects_ends_it_and_so_does_nobody(space: Space) -> None:
    steps = [{"weight": 10, "hold": "1s"}, {"approval": {"timeout": "20s"}}, {"weight": 100}]
    await begin(space, policy(space, steps=steps), versions=1)
    await space.apply(by_alice(space, "v2"), led(space, "v2"))
    await space.apply(approval(space, await record(space, "v2", "AwaitingApproval"), "Reject"))
    ended = await record(space, "v2", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("RolledBack", "ApprovalRejected")
    await space.apply(by_alice(space, "v3"), led(space, "v3"))
    ended = await record(space, "v3", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("Aborted", "ApprovalTimeout")


@scenario
async def while_people_are_waited_for_a_breach_rolls_back(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS], steps=APPROVED), versions=1)
    space.metrics.answers(space.namespace, "v2")
    await space.apply(by_alice(space, "v2"), led(space, "v2"))
    await record(space, "v2", "AwaitingApproval")
    space.metrics.answers(space.namespace, "v2", bad=0.5)
    ended = await record(space, "v2", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("RolledBack", "AnalysisFailed")


@scenario
async def pods_that_never_come_end_at_the_deadline_and_what_serves_is_untouched(space: Space) -> None:
    await begin(space, policy(space, deadline="6s"))
    serving = await space.child(kinds.DEPLOYMENT)
    await space.apply(
        objects.runtime("huge", "huge", namespace=space.namespace, container=HUGE),
        space.version("v3", fmt="huge"),
        led(space, "v3"),
    )
    ended = await record(space, "v3", *ENDED)
    assert (ended["status"]["state"], ended["status"]["reason"]) == ("Aborted", "DeadlineExceeded")
    await space.stalls("DeadlineExceeded")
    after = (await space.only(kinds.DEPLOYMENT, 1))[0]
    assert after["metadata"]["uid"] == serving["metadata"]["uid"]
    assert after["metadata"]["generation"] == serving["metadata"]["generation"]
    weight = weights(await space.child(kinds.HTTP_ROUTE))
    assert weight == {ended["status"]["from"]["revision"]: 100}


@scenario
async def the_policy_of_a_rollout_is_the_one_it_began_with(space: Space) -> None:
    await begin(space, policy(space, steps=[{"weight": 10, "hold": "3s"}, {"weight": 100}]))
    await space.apply(led(space, "v2"))
    await record(space, "v2", "Progressing", step=0)
    await space.apply(policy(space, steps=[{"weight": 1, "hold": "1h"}, {"weight": 2, "hold": "1h"}]))
    ended = await record(space, "v2", "Succeeded")
    assert [s["weight"] for s in ended["status"]["steps"]] == [10, 100]


@scenario
async def a_policy_that_is_missing_is_waited_for_while_the_model_serves(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    await space.serve()
    await space.apply(space.version("v2"), led(space, "v2", endpoint=None))
    model = await space.waits("WaitingForPolicy")
    assert model["status"]["serving"]["version"] == "v1"
    assert conditions(model)["Available"]["status"] == "True"
    await space.apply(policy(space, steps=[{"weight": 50, "hold": "1s"}, {"weight": 100}]))
    await space.ready(version="v2")


@scenario
async def a_first_revision_needs_no_steps(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS], steps=[{"weight": 10, "hold": "1h"}, {"weight": 100}]))
    (only,) = await records(space)
    assert (only["status"]["state"], only["status"]["reason"]) == ("Succeeded", "FirstRevision")


@scenario
async def a_policy_that_this_gateway_cannot_follow_is_refused_by_name(space: Space) -> None:
    await begin(space, policy(space))
    edited = policy(space, steps=[{"mirror": {"hold": "1s"}}, {"weight": 100}])
    await space.apply(edited)
    # A rollout that begins before the operator hears of the edit goes by the policy as it was.
    await space.until(kinds.ROLLOUT_POLICY, edited["metadata"]["name"], current, "the operator knows of it")
    await space.apply(led(space, "v2"))
    model = await space.until(
        kinds.MODEL,
        "digits",
        lambda m: current(m) and "mirror" in conditions(m).get("Stalled", {}).get("message", ""),
        "Stalled, naming mirror",
    )
    assert conditions(model)["Stalled"]["status"] == "True"
    assert model["status"]["serving"]["version"] == "v1"
    await space.apply(policy(space))
    await space.ready(version="v2")


@scenario
async def only_so_many_records_are_kept(space: Space) -> None:
    await begin(space, policy(space, steps=[{"weight": 100}], historyLimit=2, keepPrevious="0s"))
    for version in ("v2", "v1", "v2", "v1"):
        await space.apply(led(space, version))
        await space.ready(version=version)
    found = await eventually(lambda: records(space), lambda seen: len(seen) == 2, "two records")
    assert [r["spec"]["target"]["version"] for r in found] == ["v2", "v1"]


@scenario
async def a_canary_of_five_steps_takes_at_most_forty_writes(space: Space) -> None:
    steps = [{"weight": weight, "hold": "4s"} for weight in (5, 10, 25, 50)] + [{"weight": 100}]
    # No margin, which takes blocks of 15 s: a step that waits for evidence after its hold says so, in two writes more.
    at_most = {key: value for key, value in ERRORS.items() if key != "margin"} | {"max": "0.05"}
    await begin(space, policy(space, steps=steps, metrics=[at_most]))
    mark = space.audit.mark()
    await space.apply(led(space, "v2"))
    await space.ready(version="v2")
    await space.only(kinds.DEPLOYMENT, 1)
    await asyncio.sleep(2)
    writes = space.audit.writes(mark, space.namespace)
    counted = {key: count for key, count in writes.items() if key[1] != "events"}
    print(f"a canary of five steps: {sum(counted.values())} writes, Events apart: {counted}")
    assert sum(counted.values()) <= 40, counted


@scenario
async def the_same_manifests_again_and_again_change_nothing_in_a_rollout(space: Space) -> None:
    await begin(space, policy(space, metrics=[ERRORS]))
    async with watched(space, kinds.HTTP_ROUTE) as seen:
        for _ in range(20):
            await space.apply(policy(space, metrics=[ERRORS]), led(space, "v2"))
            await asyncio.sleep(0.2)
        ended = await record(space, "v2", "Succeeded")
    assert _path(seen, revision(ended)) == [10, 50, 100]
    assert len(await records(space)) == 2
    model = await space.ready(version="v2")
    assert is_ready(model)
