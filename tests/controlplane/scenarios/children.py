"""What a Model's children go through by other hands: taken names, edits, deletions, stripped labels, GitOps."""

import asyncio

import yaml

from modelwright.api import names
from modelwright.kube import kinds
from tests.controlplane.scenarios import CHILDREN, Space, scenario
from tests.lib import objects
from tests.lib.api import eventually
from tests.lib.kstatus import conditions, is_ready

Object = dict


def _foreign(space: Space, kind: kinds.Kind, name: str) -> Object:
    spec: Object = {
        kinds.SERVICE: {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
        kinds.DEPLOYMENT: {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "theirs"}},
            "template": {
                "metadata": {"labels": {"app": "theirs"}},
                "spec": {"containers": [{"name": "c", "image": "example.com/theirs:1"}]},
            },
        },
        kinds.HTTP_ROUTE: {"parentRefs": [{"name": "theirs"}]},
    }[kind]
    metadata = {"name": name, "namespace": space.namespace}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


async def _taken(space: Space, kind: kinds.Kind, name: str, **spec: object) -> None:
    theirs = await space.api.create(_foreign(space, kind, name))
    await space.apply(space.version("v1"), space.model(**spec))
    await space.stalls("NameTaken", says=f"{kind} {name} exists already")
    untouched = await space.get(kind, name)
    assert untouched["metadata"].get("ownerReferences") is None
    assert untouched["metadata"].get("labels") is None
    assert {k: v for k, v in untouched["spec"].items() if k in theirs["spec"]} == theirs["spec"]
    await space.api.delete(kind, space.namespace, name)
    await space.ready(version="v1")
    # Events are written beside the work, and may come later than the status.
    told = await eventually(space.events, lambda seen: ("Warning", "NameTaken") in seen, "a Warning about the name")
    assert [event for event in told if event[0] == "Warning"] == [("Warning", "NameTaken")], told


@scenario
async def a_service_of_that_name_that_is_not_ours_is_never_adopted(space: Space) -> None:
    await _taken(space, kinds.SERVICE, "digits")


@scenario
async def a_route_of_that_name_that_is_not_ours_is_never_adopted(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    await _taken(space, kinds.HTTP_ROUTE, "digits", endpoint=objects.endpoint(space.namespace))


@scenario
async def a_deployment_of_that_name_that_is_not_ours_is_never_adopted(space: Space) -> None:
    model = await space.serve()
    name = f"digits-{model['status']['serving']['revision']}"
    await space.api.delete(kinds.MODEL, space.namespace, "digits")
    await space.gone(kinds.DEPLOYMENT, name)
    await _taken(space, kinds.DEPLOYMENT, name)


@scenario
async def what_others_edit_is_mended_and_what_they_add_is_left(space: Space) -> None:
    await space.serve(serving={"replicas": 2})
    deployment, service = await space.child(kinds.DEPLOYMENT), await space.child(kinds.SERVICE)
    name = deployment["metadata"]["name"]
    budget = await space.child(kinds.POD_DISRUPTION_BUDGET)
    await space.api.patch(
        kinds.DEPLOYMENT,
        space.namespace,
        name,
        {
            "metadata": {"labels": {"theirs": "1", names.LABEL_ROLE: "edited"}, "annotations": {"theirs": "1"}},
            "spec": {"replicas": 5, "minReadySeconds": 1, "template": {"spec": {"terminationGracePeriodSeconds": 33}}},
        },
    )
    await space.api.patch(
        kinds.SERVICE,
        space.namespace,
        "digits",
        {
            "metadata": {"annotations": {"theirs": "1"}},
            "spec": {"sessionAffinity": "ClientIP", "selector": {names.LABEL_REVISION: "none"}},
        },
    )
    await space.api.patch(kinds.POD_DISRUPTION_BUDGET, space.namespace, name, {"spec": {"maxUnavailable": 2}})
    mended = await space.until(
        kinds.DEPLOYMENT,
        name,
        lambda d: d["spec"]["replicas"] == 2 and d["metadata"]["labels"][names.LABEL_ROLE] == "serving",
        "mended",
    )
    assert mended["spec"]["template"] == deployment["spec"]["template"]
    assert (mended["metadata"]["labels"]["theirs"], mended["metadata"]["annotations"]["theirs"]) == ("1", "1")
    assert mended["spec"]["minReadySeconds"] == 1
    kept = await space.until(
        kinds.SERVICE, "digits", lambda s: s["spec"]["selector"] == service["spec"]["selector"], "mended"
    )
    assert kept["metadata"]["annotations"]["theirs"] == "1"
    assert kept["spec"]["sessionAffinity"] == "ClientIP"
    await space.until(kinds.POD_DISRUPTION_BUDGET, name, lambda b: b["spec"] == budget["spec"], "mended")
    await space.ready(replicas=2)


@scenario
async def a_child_that_is_deleted_comes_back(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    await space.serve(serving={"replicas": 2}, endpoint=objects.endpoint(space.namespace))
    for kind in CHILDREN:
        for child in await space.children(kind):
            name, uid = child["metadata"]["name"], child["metadata"]["uid"]
            await space.api.delete(kind, space.namespace, name)
            await space.until(kind, name, lambda c, uid=uid: c["metadata"]["uid"] != uid, "is back")
    await space.ready(replicas=2)


@scenario
async def a_child_that_loses_its_labels_gets_them_back_and_is_looked_after(space: Space) -> None:
    await space.serve()
    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.CONTROLLER_REVISION):
        child = await space.child(kind)
        name, labels = child["metadata"]["name"], child["metadata"]["labels"]
        await space.api.patch(kind, space.namespace, name, [{"op": "remove", "path": "/metadata/labels"}])
        await space.until(
            kind,
            name,
            lambda c, labels=labels: labels.items() <= (c["metadata"].get("labels") or {}).items(),
            "has its labels again",
        )
    deployment = await space.child(kinds.DEPLOYMENT)
    name = deployment["metadata"]["name"]
    await space.api.patch(kinds.DEPLOYMENT, space.namespace, name, {"spec": {"replicas": 3}})
    await space.until(kinds.DEPLOYMENT, name, lambda d: d["spec"]["replicas"] == 1, "mended")
    await space.ready(replicas=1)


@scenario
async def the_serving_revision_is_mended_while_a_candidate_does_not_come_up(space: Space) -> None:
    await space.serve()
    serving = await space.child(kinds.DEPLOYMENT)
    await space.apply(
        objects.runtime(
            "huge", "huge", namespace=space.namespace, container={"resources": {"requests": {"cpu": "100000"}}}
        ),
        space.version("v2", fmt="huge"),
        space.model(version="v2"),
    )
    await space.only(kinds.DEPLOYMENT, 2)
    name, selector = serving["metadata"]["name"], (await space.get(kinds.SERVICE, "digits"))["spec"]["selector"]
    await space.api.patch(kinds.SERVICE, space.namespace, "digits", {"spec": {"selector": {names.LABEL_REVISION: "x"}}})
    await space.until(kinds.SERVICE, "digits", lambda s: s["spec"]["selector"] == selector, "selects what serves")
    await space.api.delete(kinds.SERVICE, space.namespace, "digits")
    await space.until(kinds.SERVICE, "digits", lambda s: s["spec"]["selector"] == selector, "is back")
    await space.api.delete(kinds.DEPLOYMENT, space.namespace, name)
    await space.until(kinds.DEPLOYMENT, name, lambda d: d["metadata"]["uid"] != serving["metadata"]["uid"], "is back")
    model = await space.until(
        kinds.MODEL, "digits", lambda m: conditions(m)["Available"]["status"] == "True", "available"
    )
    assert model["status"]["serving"]["version"] == "v1"


@scenario
async def manifests_applied_again_and_again_by_the_server_change_nothing(space: Space) -> None:
    await _loop(space, server_side=True)


@scenario
async def manifests_applied_again_and_again_by_the_client_change_nothing(space: Space) -> None:
    await _loop(space, server_side=False)


async def _loop(space: Space, *, server_side: bool) -> None:
    """A GitOps tool that applies everything twenty times, from before the first rollout to after the second."""

    def manifests(version: str) -> list[Object]:
        tracked = space.model(version=version, serving={"replicas": 2})
        tracked["metadata"]["labels"] = {"app.kubernetes.io/instance": "shop"}
        return [space.version("v1"), space.version("v2"), tracked]

    await _kubectl_apply(space, manifests("v1"), server_side)
    await space.ready(version="v1")
    await _kubectl_apply(space, manifests("v2"), server_side)
    versions = set()
    for _ in range(20):
        said = await _kubectl_apply(space, manifests("v2"), server_side)
        versions.add((await space.get(kinds.MODEL, "digits"))["metadata"]["generation"])
        word = "serverside-applied" if server_side else "unchanged"
        assert all(line.endswith(word) for line in said.splitlines()), said
    assert versions == {2}
    await space.ready(version="v2", replicas=2)
    await space.only(kinds.DEPLOYMENT, 1)
    managers = {
        (entry["manager"], entry.get("subresource"))
        for entry in (await space.get(kinds.MODEL, "digits"))["metadata"]["managedFields"]
    }
    assert ("modelwright-status", "status") in managers
    assert not [m for m in managers if m[0].startswith("modelwright") and m[1] != "status"]


async def _kubectl_apply(space: Space, manifests: list[Object], server_side: bool) -> str:
    program, config = space.kubectl
    how = ["--server-side", "--field-manager=gitops"] if server_side else []
    process = await asyncio.create_subprocess_exec(
        program,
        "--kubeconfig",
        config,
        "apply",
        *how,
        "-f",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate(yaml.safe_dump_all(manifests).encode())
    assert process.returncode == 0, said.decode()
    return said.decode().strip()


@scenario
async def a_suspended_model_is_left_as_it_is(space: Space) -> None:
    await space.serve()
    deployment = await space.child(kinds.DEPLOYMENT)
    await space.apply(space.version("v2"), space.model(version="v2", suspend=True))
    model = await space.seen()
    assert conditions(model)["Ready"]["status"] == "False"
    assert "spec.suspend" in conditions(model)["Ready"]["message"]
    name = deployment["metadata"]["name"]
    await space.api.patch(kinds.DEPLOYMENT, space.namespace, name, {"spec": {"replicas": 2}})
    await space.pass_over()
    assert (await space.child(kinds.DEPLOYMENT))["spec"]["replicas"] == 2
    assert conditions(await space.get(kinds.MODEL, "digits"))["Available"]["status"] == "True"
    await space.apply(space.model(version="v2", suspend=False))
    await space.ready(version="v2")


@scenario
async def specs_a_then_b_then_a_give_what_a_gave(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    a = {
        "serving": {"replicas": 2, "resources": {"limits": {"memory": "1Gi"}}, "podTemplate": {"spec": {"priority": 0}}}
    }
    b = {
        "serving": {
            "autoscaling": {"minReplicas": 1, "maxReplicas": 3},
            "podTemplate": {
                "metadata": {"annotations": {"b": "b"}},
                "spec": {"hostname": "b", "volumes": [{"name": "more", "emptyDir": {}}]},
            },
        },
        "endpoint": objects.endpoint(space.namespace, hostnames=["b.example.com"], pathPrefix="/b"),
    }
    await space.serve(**a)
    before = await _shape(space)
    await space.apply(space.model(**b))
    await space.until(kinds.MODEL, "digits", lambda m: is_ready(m) and "b.example.com" in m["status"]["url"], "B")
    assert len(await space.children(kinds.HTTP_ROUTE)) == 1
    await space.apply(space.model(**a))
    await space.until(kinds.MODEL, "digits", lambda m: is_ready(m) and "svc" in m["status"]["url"], "A again")
    await space.only(kinds.DEPLOYMENT, 1)
    await eventually(lambda: _shape(space), lambda seen: seen == before, f"the same children as {before}")


async def _shape(space: Space) -> list[tuple[str, str, object]]:
    """Kind, name and spec of all children, without what the API server or other controllers choose."""
    found = []
    for kind in CHILDREN:
        if kind == kinds.CONTROLLER_REVISION:
            continue
        for child in await space.children(kind):
            spec = {k: v for k, v in child["spec"].items() if not k.startswith(("clusterIP", "ipFamil"))}
            found.append((kind.kind, child["metadata"]["name"], spec))
    return found
