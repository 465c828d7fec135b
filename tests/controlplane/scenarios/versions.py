"""Which version serves: the first, another, a stamped one, the newest; and what happens when one is late or lost."""

import asyncio
import json

from modelwright.api import names
from modelwright.kube import kinds
from tests.controlplane.scenarios import Space, scenario
from tests.lib import objects
from tests.lib.api import eventually
from tests.lib.kstatus import conditions


@scenario
async def a_first_version_serves(space: Space) -> None:
    tracked = space.model()
    tracked["metadata"]["labels"] = {"app.kubernetes.io/instance": "shop", "team": "vision"}
    tracked["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "shop:modelwright.dev/Model:a/digits"}
    await space.apply(tracked)
    await space.waits("WaitingForVersion")
    await space.apply(space.version("v1"))
    model = await space.ready(version="v1", replicas=1)
    status, uid = model["status"], model["metadata"]["uid"]
    assert status["serving"]["revision"] == status["target"]["revision"]
    assert [(t["weight"], t["ready"]) for t in status["traffic"]] == [(100, True)]
    assert status["runtime"]["name"] == "plain"
    assert "format plain, priority 0" in status["runtime"]["reason"]
    assert status["url"] == f"http://digits.{space.namespace}.svc"
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.CONTROLLER_REVISION):
        metadata = (await space.child(kind))["metadata"]
        assert [(o["uid"], o["controller"]) for o in metadata["ownerReferences"]] == [(uid, True)]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "modelwright"
        assert "app.kubernetes.io/instance" not in metadata["labels"]
        assert not [key for key in metadata.get("annotations", {}) if "argocd" in key]
    for kind in (kinds.POD_DISRUPTION_BUDGET, kinds.HORIZONTAL_POD_AUTOSCALER, kinds.HTTP_ROUTE):
        assert await space.children(kind) == []
    await eventually(space.events, lambda seen: len(seen) >= 1, "an Event")
    await asyncio.sleep(1)
    assert await space.events() == [("Normal", "Serving")]


@scenario
async def another_version_takes_over_and_going_back_gives_the_same_revision(space: Space) -> None:
    first = await space.serve(serving={"replicas": 2})
    template = (await space.child(kinds.DEPLOYMENT))["spec"]["template"]
    service = (await space.child(kinds.SERVICE))["spec"]
    await space.apply(space.version("v2"), space.model(version="v2", serving={"replicas": 2}))
    second = await space.ready(version="v2")
    assert second["status"]["serving"]["revision"] != first["status"]["serving"]["revision"]
    await space.only(kinds.DEPLOYMENT, 1)
    assert [entry["version"] for entry in second["status"]["history"]] == ["v1"]
    await space.apply(space.model(version="v1", serving={"replicas": 2}))
    third = await space.ready(version="v1")
    assert third["status"]["serving"]["revision"] == first["status"]["serving"]["revision"]
    await space.only(kinds.DEPLOYMENT, 1)
    await space.only(kinds.POD_DISRUPTION_BUDGET, 1)
    assert (await space.child(kinds.DEPLOYMENT))["spec"]["template"] == template
    assert (await space.child(kinds.SERVICE))["spec"] == service
    assert len(await space.children(kinds.CONTROLLER_REVISION)) == 2
    await eventually(space.events, lambda seen: len(seen) == 3, "three Events")
    assert set(await space.events()) == {("Normal", "Serving")}


@scenario
async def a_template_is_stamped_as_a_version_named_by_its_content(space: Space) -> None:
    def inline(number: int) -> dict:
        content = {"artifact": {"uri": f"s3://models/{number}", "digest": objects.DIGEST, "format": {"name": "plain"}}}
        return space.model(version=None) | {"spec": {"version": {"template": content}}}

    await space.apply(inline(1))
    first = (await space.ready())["status"]["serving"]["version"]
    stamped = await space.get(kinds.MODEL_VERSION, first)
    assert stamped["spec"]["modelRef"] == {"name": "digits"}
    assert stamped["spec"]["artifact"]["uri"] == "s3://models/1"
    await space.apply(inline(2))
    await space.until(kinds.MODEL, "digits", lambda m: m["status"]["serving"]["version"] != first, "another version")
    await space.ready()
    await space.apply(inline(1))
    await space.ready(version=first)
    assert len(await space.children(kinds.MODEL_VERSION)) == 2
    await space.api.delete(kinds.MODEL_VERSION, space.namespace, first)
    await space.until(
        kinds.MODEL_VERSION, first, lambda v: v["metadata"]["uid"] != stamped["metadata"]["uid"], "stamped anew"
    )
    await space.ready(version=first)


@scenario
async def following_takes_the_newest_and_never_goes_below_the_serving_one(space: Space) -> None:
    await space.apply(space.version("b"), space.model(version=None) | {"spec": {"version": {"follow": {}}}})
    await space.ready(version="b")
    await asyncio.sleep(1.1)
    await space.apply(space.version("a"))
    await space.ready(version="a")
    await asyncio.sleep(1.1)
    await space.apply(space.version("other", model="somebody-elses"))
    await space.pass_over()
    await space.ready(version="a")
    deployment = await space.only(kinds.DEPLOYMENT, 1)
    await space.api.delete(kinds.MODEL_VERSION, space.namespace, "a")
    model = await space.until(
        kinds.MODEL, "digits", lambda m: conditions(m)["Ready"]["status"] == "False", "says that its version is gone"
    )
    await space.pass_over()
    model = await space.get(kinds.MODEL, "digits")
    assert model["status"]["serving"]["version"] == "a"
    assert conditions(model)["Available"]["status"] == "True"
    assert (await space.child(kinds.DEPLOYMENT))["metadata"]["uid"] == deployment[0]["metadata"]["uid"]
    await asyncio.sleep(1.1)
    await space.apply(space.version("c"))
    await space.ready(version="c")


@scenario
async def a_newer_target_supersedes_one_on_its_way_while_the_first_serves_on(space: Space) -> None:
    await space.serve()
    serving = await space.child(kinds.DEPLOYMENT)
    await space.apply(
        objects.runtime("huge", "huge", namespace=space.namespace, container=_too_big()),
        space.version("v2", fmt="huge"),
        space.model(version="v2"),
    )
    await space.only(kinds.DEPLOYMENT, 2)
    model = await space.waits("WaitingForPods")
    assert model["status"]["serving"]["version"] == "v1"
    assert conditions(model)["Available"]["status"] == "True"
    selector = (await space.get(kinds.SERVICE, "digits"))["spec"]["selector"]
    assert selector[names.LABEL_REVISION] == serving["metadata"]["labels"][names.LABEL_REVISION]
    await space.apply(space.version("v3"), space.model(version="v3"))
    await space.ready(version="v3")
    await space.only(kinds.DEPLOYMENT, 1)


@scenario
async def going_back_mid_rollout_leaves_the_first_untouched(space: Space) -> None:
    await space.serve()
    serving = await space.child(kinds.DEPLOYMENT)
    await space.apply(
        objects.runtime("huge", "huge", namespace=space.namespace, container=_too_big()),
        space.version("v2", fmt="huge"),
        space.model(version="v2"),
    )
    await space.only(kinds.DEPLOYMENT, 2)
    stuck = await space.stalls("Unschedulable")
    assert stuck["status"]["failure"]["pod"]
    assert stuck["status"]["serving"]["version"] == "v1"
    await space.apply(space.model(version="v1"))
    await space.ready(version="v1")
    await space.only(kinds.DEPLOYMENT, 1)
    after = await space.child(kinds.DEPLOYMENT)
    assert after["metadata"]["uid"] == serving["metadata"]["uid"]
    assert after["metadata"]["generation"] == serving["metadata"]["generation"]


def _too_big() -> dict:
    return {"resources": {"requests": {"cpu": "100000"}}}


@scenario
async def a_serving_version_that_is_deleted_serves_on(space: Space) -> None:
    first = await space.serve(serving={"replicas": 2})
    before = await space.child(kinds.DEPLOYMENT)
    await space.api.delete(kinds.MODEL_VERSION, space.namespace, "v1")
    model = await space.waits("WaitingForVersion")
    assert conditions(model)["Available"]["status"] == "True"
    assert model["status"]["serving"] == first["status"]["serving"]
    assert (await space.child(kinds.DEPLOYMENT))["metadata"]["generation"] == before["metadata"]["generation"]
    # It lives on its stored template: what is lost of it comes back.
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET):
        child = await space.child(kind)
        await space.api.delete(kind, space.namespace, child["metadata"]["name"])
        await eventually(
            lambda kind=kind: space.children(kind),
            lambda seen, uid=child["metadata"]["uid"]: [o for o in seen if o["metadata"]["uid"] != uid],
            f"the {kind} is back",
        )
    await space.until(
        kinds.MODEL, "digits", lambda m: conditions(m)["Available"]["status"] == "True", "available again"
    )
    await space.apply(space.version("v1"))
    model = await space.ready(version="v1")
    assert model["status"]["serving"]["revision"] == first["status"]["serving"]["revision"]


@scenario
async def a_version_of_another_model_is_never_served(space: Space) -> None:
    await space.serve()
    before = await space.child(kinds.DEPLOYMENT)
    await space.apply(space.version("theirs", model="faces"), space.model(version="theirs"))
    model = await space.stalls("VersionOfAnotherModel", says="faces")
    assert model["status"]["serving"]["version"] == "v1"
    assert (await space.child(kinds.DEPLOYMENT))["metadata"]["generation"] == before["metadata"]["generation"]
    await space.apply(space.model(version="v1"))
    await space.ready(version="v1")


@scenario
async def a_digest_is_found_out_once_and_pinned_before_any_pod_serves(space: Space) -> None:
    await space.apply(space.version("v1", digest=None), space.model())
    await space.waits("WaitingForDigest")
    assert await space.children(kinds.DEPLOYMENT) == []
    pod = (await eventually(lambda: space.children(kinds.POD), lambda seen: len(seen) == 1, "a resolve pod"))[0]
    await _ends(space, pod, 1, {"reason": "ArtifactNotFound", "message": "there is nothing at s3://models/v1"})
    await space.stalls("ArtifactNotFound", says="spec.artifact.uri")
    await _ends(space, pod, 0, {"digest": "sha256:" + "a" * 64, "sizeBytes": 7})
    await space.ready(version="v1")
    version = await space.get(kinds.MODEL_VERSION, "v1")
    assert version["status"]["artifact"] == {"digest": "sha256:" + "a" * 64, "sizeBytes": 7}
    await space.gone(kinds.POD, pod["metadata"]["name"])
    fetch = (await space.child(kinds.DEPLOYMENT))["spec"]["template"]["spec"]["initContainers"][0]
    assert "sha256:" + "a" * 64 in fetch["args"]


@scenario
async def twenty_versions_without_a_digest_have_few_pods_and_hold_up_no_model(space: Space) -> None:
    many = [space.version(f"n{number:02}", model="nobody", digest=None) for number in range(20)]
    await space.apply(*many)

    async def of_nobody() -> list[dict]:
        return await space.children(kinds.POD, "nobody")

    async def waiting() -> list[dict]:
        found = await space.api.list(kinds.MODEL_VERSION, space.namespace)
        return [v for v in found if conditions(v).get("Reconciling", {}).get("reason") == "WaitingForTurn"]

    await eventually(waiting, lambda seen: len(seen) == 12, "twelve wait for their turn")
    assert len(await of_nobody()) == 8
    await space.apply(space.version("v1", digest=None), space.model())
    pod = (await eventually(lambda: space.children(kinds.POD), lambda seen: len(seen) == 1, "the Model's pod"))[0]
    assert len(await of_nobody()) == 8
    await _ends(space, pod, 0, {"digest": objects.DIGEST, "sizeBytes": 7})
    await space.ready(version="v1")
    first = (await of_nobody())[0]
    await _ends(space, first, 0, {"digest": objects.DIGEST, "sizeBytes": 7})
    await space.gone(kinds.POD, first["metadata"]["name"])
    await eventually(waiting, lambda seen: len(seen) == 11, "the next one has its turn")
    assert len(await of_nobody()) == 8
    for version in many:
        await space.api.delete(kinds.MODEL_VERSION, space.namespace, version["metadata"]["name"])
    await eventually(of_nobody, lambda seen: seen == [], "their pods are gone")


@scenario
async def a_version_whose_signature_is_bad_is_refused_before_any_pod_of_it(space: Space) -> None:
    pem = f"-----BEGIN PUBLIC KEY-----\n{'A' * 64}\n-----END PUBLIC KEY-----\n"
    asked = {"publicKeys": [{"name": "release", "pem": pem}]}
    await space.apply(space.version("v1"), space.model(signatures=asked))
    await space.waits("WaitingForSignature")
    pod = (await eventually(lambda: space.children(kinds.POD), lambda seen: len(seen) == 1, "a resolve pod"))[0]
    assert f"release={pem}" in pod["spec"]["containers"][0]["args"]
    good = {"reason": "SignatureVerified", "message": "signed by key release", "key": "release"}
    await _ends(space, pod, 0, {"digest": objects.DIGEST, "sizeBytes": 7, "signature": good})
    await space.ready(version="v1")
    version = await space.get(kinds.MODEL_VERSION, "v1")
    assert conditions(version)["Verified"]["reason"] == "SignatureVerified"
    await space.gone(kinds.POD, pod["metadata"]["name"])
    await space.apply(space.version("v2"), space.model(version="v2", signatures=asked))
    pod = (await eventually(lambda: _resolving(space), lambda seen: len(seen) == 1, "a resolve pod"))[0]
    bad = {"reason": "SignatureInvalid", "message": "the artifact is not what key release has signed"}
    await _ends(space, pod, 0, {"digest": objects.DIGEST, "sizeBytes": 7, "signature": bad})
    model = await space.stalls("SignatureInvalid", says="v2")
    assert model["status"]["serving"]["version"] == "v1"
    await space.only(kinds.DEPLOYMENT, 1)
    await space.apply(space.model(version="v2", signatures={**asked, "mode": "Warn"}))
    await space.ready(version="v2")
    version = await space.get(kinds.MODEL_VERSION, "v2")
    assert conditions(version)["Verified"]["status"] == "False"


async def _resolving(space: Space) -> list[dict]:
    found = await space.children(kinds.POD)
    return [pod for pod in found if pod["metadata"]["labels"][names.LABEL_ROLE] == names.ROLE_RESOLVE]


async def _ends(space: Space, pod: dict, code: int, report: dict) -> None:
    """The pod's container ends with this exit code and report, as a kubelet would say it."""
    name = pod["metadata"]["name"]
    await space.until(kinds.POD, name, lambda p: p["status"].get("phase") == "Running", "Running")
    state = {"terminated": {"exitCode": code, "message": json.dumps(report)}}
    container = {"name": "fetch", "image": "x", "imageID": "x", "ready": False, "restartCount": 0, "state": state}
    await space.api.patch(kinds.POD, space.namespace, name, {"status": {"containerStatuses": [container]}}, "status")
