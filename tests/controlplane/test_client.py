"""Our client against a real API server: what it accepts and refuses, and the claims of docs/adr/0002 on writing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelwright.api.names import STATUS_FIELD_MANAGER
from modelwright.kube import api_errors, kinds
from modelwright.kube import client as client_module
from modelwright.kube.client import KubeClient
from modelwright.kube.events import EventRecorder
from modelwright.obs.clock import SystemClock
from tests.lib.control_plane import Server

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]


def deployment(namespace: str, name: str = "digits", **spec: Any) -> Object:
    container = {"name": "model", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name, "labels": {"mine": "yes", "extra": "yes"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def model(namespace: str, name: str = "digits") -> Object:
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"version": {"name": "digits-v1"}},
    }


def managers(obj: Object) -> list[tuple[str, str]]:
    return [(m["manager"], m["operation"]) for m in obj["metadata"]["managedFields"]]


def fields(error: api_errors.ApiError) -> list[str]:
    return [cause.field for cause in error.causes]


async def test_create_get_apply_delete(client: KubeClient, namespace: str) -> None:
    created = await client.create(deployment(namespace))
    assert created["kind"] == "Deployment"
    assert await client.get(kinds.DEPLOYMENT, namespace, "digits") == created
    applied = await client.apply(deployment(namespace, replicas=3))
    assert applied["spec"]["replicas"] == 3
    assert applied["metadata"]["uid"] == created["metadata"]["uid"]
    again = await client.apply(deployment(namespace, replicas=3))
    assert again["metadata"]["resourceVersion"] == applied["metadata"]["resourceVersion"]
    await client.delete(kinds.DEPLOYMENT, namespace, "digits", uid=created["metadata"]["uid"])
    assert await client.get(kinds.DEPLOYMENT, namespace, "digits") is None
    await client.delete(kinds.DEPLOYMENT, namespace, "digits", uid=created["metadata"]["uid"])


async def test_apply_creates_what_is_not_there(client: KubeClient, namespace: str) -> None:
    created = await client.apply(deployment(namespace))
    assert managers(created) == [("modelwright", "Apply")]


async def test_status_is_applied_apart_from_the_spec(client: KubeClient, namespace: str) -> None:
    created = await client.create(model(namespace))
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "WaitingForVersion",
        "message": "x",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    answer = await client.apply(
        {
            "apiVersion": "modelwright.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"namespace": namespace, "name": "digits", "uid": created["metadata"]["uid"]},
            "status": {"observedGeneration": 1, "conditions": [condition]},
        },
        subresource="status",
        field_manager=STATUS_FIELD_MANAGER,
    )
    assert answer["status"]["conditions"] == [condition]
    assert answer["spec"] == created["spec"]
    assert answer["metadata"]["generation"] == 1
    assert (STATUS_FIELD_MANAGER, "Apply") in managers(answer)


@pytest.mark.parametrize("verb", ["create", "apply"])
@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"bogus": 1}, "spec.bogus"), ({"replicas": "many"}, "spec.replicas"), ({"replicas": -1}, "spec.replicas")],
    ids=["unknown field", "wrong type", "wrong value"],
)
async def test_what_does_not_fit_is_invalid_and_names_the_field(
    client: KubeClient, namespace: str, verb: str, wrong: Object, field: str
) -> None:
    with pytest.raises(api_errors.Invalid) as caught:
        await getattr(client, verb)(deployment(namespace, **wrong))
    assert field in fields(caught.value)


@pytest.mark.parametrize("verb", ["create", "apply"])
async def test_an_unknown_field_deep_in_a_pod_template_is_named(client: KubeClient, namespace: str, verb: str) -> None:
    wrong = deployment(namespace)
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(api_errors.Invalid) as caught:
        await getattr(client, verb)(wrong)
    assert any("containers[" in field and field.endswith("imagePolicy") for field in fields(caught.value))


@pytest.mark.parametrize("verb", ["create", "apply"])
async def test_an_unknown_field_of_our_own_kinds_is_refused_too(client: KubeClient, namespace: str, verb: str) -> None:
    wrong = model(namespace)
    wrong["spec"]["bogus"] = 1
    with pytest.raises(api_errors.Invalid, match=r"spec\.bogus"):
        await getattr(client, verb)(wrong)


async def test_a_stale_resource_version_is_a_conflict(client: KubeClient, namespace: str) -> None:
    first = await client.create(deployment(namespace))
    await client.apply(deployment(namespace, replicas=3))
    late = deployment(namespace, replicas=4)
    late["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"]
    for write in (client.apply, client.replace):
        with pytest.raises(api_errors.Conflict):
            await write(late)
    found = await client.get(kinds.DEPLOYMENT, namespace, "digits")
    assert found is not None
    assert found["spec"]["replicas"] == 3


async def test_apply_with_a_uid_never_creates_or_hits_another_object(client: KubeClient, namespace: str) -> None:
    old = await client.create(deployment(namespace))
    await client.delete(kinds.DEPLOYMENT, namespace, "digits", uid=old["metadata"]["uid"])
    ours = deployment(namespace)
    ours["metadata"]["uid"] = old["metadata"]["uid"]
    with pytest.raises(api_errors.Conflict):
        await client.apply(ours)
    assert await client.get(kinds.DEPLOYMENT, namespace, "digits") is None
    await client.create(deployment(namespace))
    with pytest.raises(api_errors.Conflict):
        await client.apply(ours)


async def test_delete_asks_for_the_very_object(client: KubeClient, namespace: str) -> None:
    first = await client.create(deployment(namespace))
    with pytest.raises(api_errors.Conflict):
        await client.delete(kinds.DEPLOYMENT, namespace, "digits", uid="0f5f1e1e-0000-0000-0000-000000000000")
    newer = await client.apply(deployment(namespace, replicas=3))
    uid = first["metadata"]["uid"]
    version = first["metadata"]["resourceVersion"]
    with pytest.raises(api_errors.Conflict):
        await client.delete(kinds.DEPLOYMENT, namespace, "digits", uid=uid, resource_version=version)
    version = newer["metadata"]["resourceVersion"]
    await client.delete(kinds.DEPLOYMENT, namespace, "digits", uid=uid, resource_version=version)
    assert await client.get(kinds.DEPLOYMENT, namespace, "digits") is None


async def test_a_namespace_that_is_not_there(client: KubeClient) -> None:
    with pytest.raises(api_errors.NotFound, match="nowhere"):
        await client.create(deployment("nowhere"))
    assert await client.get(kinds.DEPLOYMENT, "nowhere", "x") is None
    assert await client.list(kinds.DEPLOYMENT, "nowhere") == []


async def test_rbac_says_denied(client: KubeClient, namespace: str) -> None:
    client._api.set_default_header("Impersonate-User", "nobody")
    for call in (client.create(deployment(namespace)), client.get(kinds.DEPLOYMENT, namespace, "x")):
        with pytest.raises(api_errors.Denied, match='User "nobody" cannot'):
            await call


async def test_lists_by_page_label_namespace_and_metadata_only(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAGE_OBJECTS", 2)
    for n in range(5):
        await client.create(deployment(namespace, f"d-{n}"))
    assert {o["metadata"]["name"] for o in await client.list(kinds.DEPLOYMENT, namespace)} == {
        f"d-{n}" for n in range(5)
    }
    assert await client.list(kinds.DEPLOYMENT, namespace, labels="mine=no") == []
    found = await client.list(kinds.DEPLOYMENT, labels="mine=yes", metadata_only=True)
    ours = [o for o in found if o["metadata"]["namespace"] == namespace]
    assert len(ours) == 5
    assert all(o["kind"] == "Deployment" and "spec" not in o and o["metadata"]["uid"] for o in ours)


async def test_which_kinds_are_served(client: KubeClient) -> None:
    served = await client.served_kinds()
    assert set(kinds.OWN_KINDS) <= served
    assert not set(kinds.OPTIONAL_KINDS) & served, "the Gateway API is not installed here"


async def test_events_are_accepted(client: KubeClient, crd_server: Server, namespace: str) -> None:
    created = await client.create(model(namespace))
    recorder = EventRecorder(client, SystemClock(), instance="test_1")
    running = asyncio.create_task(recorder.run())
    recorder.record(created, "Warning", "NoSupportingRuntime", "no runtime lists the format")
    recorder.record(created, "Warning", "NoSupportingRuntime", "no runtime lists the format")
    await recorder.drain(10)
    running.cancel()
    [event] = await client.list(kinds.EVENT, namespace)
    assert event["regarding"]["name"] == "digits"
    described = crd_server.ok("describe", "model", "digits", "-n", namespace)
    assert "no runtime lists the format" in described


# The claims of docs/adr/0002-create-then-apply.md.


def foreign(namespace: str) -> Object:
    """Somebody else's Service of the name that we want; its endpoints are kept by hand, so it has no selector."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": "digits", "labels": {"app": "shop"}},
        "spec": {"ports": [{"name": "web", "port": 80}]},
    }


def ours(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": "digits", "labels": {"mine": "yes"}},
        "spec": {"selector": {"model": "digits"}, "ports": [{"name": "http", "port": 8080}]},
    }


async def test_adr_0002_a_create_never_touches_what_is_there(
    client: KubeClient, crd_server: Server, namespace: str
) -> None:
    crd_server.ok("create", "-f", "-", objects=foreign(namespace))
    before = await client.get(kinds.SERVICE, namespace, "digits")
    with pytest.raises(api_errors.AlreadyExists):
        await client.create(ours(namespace))
    assert await client.get(kinds.SERVICE, namespace, "digits") == before


async def test_adr_0002_an_unforced_apply_merges_into_a_foreign_object(
    client: KubeClient, crd_server: Server, namespace: str
) -> None:
    crd_server.ok("create", "-f", "-", objects=foreign(namespace))
    crd_server.ok("apply", "--server-side", "--field-manager=modelwright", "-f", "-", objects=ours(namespace))
    found = await client.get(kinds.SERVICE, namespace, "digits")
    assert found is not None
    assert found["spec"]["selector"] == {"model": "digits"}, "the shop's requests go to the model now"
    assert {p["port"] for p in found["spec"]["ports"]} == {80, 8080}


async def test_adr_0002_only_a_field_set_differently_is_a_conflict(crd_server: Server, namespace: str) -> None:
    theirs = foreign(namespace)
    theirs["spec"]["selector"] = {"app": "shop"}
    crd_server.ok("create", "-f", "-", objects=theirs)
    answer = crd_server.run("apply", "--server-side", "--field-manager=modelwright", "-f", "-", objects=ours(namespace))
    assert answer.returncode != 0
    assert ".spec.selector" in answer.stderr


async def test_adr_0002_a_forced_apply_takes_a_foreign_object_over(
    client: KubeClient, crd_server: Server, namespace: str
) -> None:
    theirs = foreign(namespace)
    theirs["spec"]["selector"] = {"app": "shop"}
    crd_server.ok("create", "-f", "-", objects=theirs)
    assert (await client.apply(ours(namespace)))["spec"]["selector"] == {"model": "digits"}


async def test_adr_0002_after_a_create_an_omitted_field_stays(client: KubeClient, namespace: str) -> None:
    created = await client.create(deployment(namespace, minReadySeconds=7))
    assert managers(created) == [("modelwright", "Update")]
    less = deployment(namespace)
    del less["metadata"]["labels"]["extra"]
    less["spec"]["template"]["spec"]["containers"][0]["env"].pop()
    del less["spec"]["replicas"]
    applied = await client.apply(less)
    assert managers(applied) == [("modelwright", "Apply"), ("modelwright", "Update")]
    assert applied["spec"]["minReadySeconds"] == 7
    assert applied["spec"]["replicas"] == 2, "which is what an autoscaler needs"
    assert applied["metadata"]["labels"]["extra"] == "yes"
    assert len(applied["spec"]["template"]["spec"]["containers"][0]["env"]) == 2


async def test_adr_0002_an_explicit_value_is_what_clears_a_field(client: KubeClient, namespace: str) -> None:
    await client.create(deployment(namespace, minReadySeconds=7))
    cleared = deployment(namespace, minReadySeconds=0)
    cleared["metadata"]["labels"]["extra"] = ""
    applied = await client.apply(cleared)
    assert "minReadySeconds" not in applied["spec"]
    assert applied["metadata"]["labels"]["extra"] == ""


async def test_adr_0002_an_empty_map_or_list_does_not_clear_a_create(client: KubeClient, namespace: str) -> None:
    await client.create(deployment(namespace))
    emptied = deployment(namespace)
    emptied["metadata"]["labels"] = {}
    emptied["spec"]["template"]["spec"]["containers"][0]["env"] = []
    applied = await client.apply(emptied)
    assert applied["metadata"]["labels"] == {"mine": "yes", "extra": "yes"}
    assert len(applied["spec"]["template"]["spec"]["containers"][0]["env"]) == 2


async def test_adr_0002_an_atomic_list_or_map_is_replaced_as_a_whole(client: KubeClient, namespace: str) -> None:
    service = ours(namespace)
    service["spec"]["selector"] = {"model": "digits", "revision": "abc"}
    await client.create(service)
    assert (await client.apply(ours(namespace)))["spec"]["selector"] == {"model": "digits"}


async def test_adr_0002_a_merge_patch_takes_away_what_apply_leaves(client: KubeClient, namespace: str) -> None:
    created = await client.create(deployment(namespace))
    less = deployment(namespace)
    less["metadata"]["uid"] = created["metadata"]["uid"]
    less["metadata"]["labels"]["extra"] = None
    less["spec"]["template"]["spec"]["containers"][0]["env"].pop()
    patched = await client.patch(less)
    assert patched["metadata"]["labels"] == {"mine": "yes"}
    assert len(patched["spec"]["template"]["spec"]["containers"][0]["env"]) == 1
    assert managers(patched) == [("modelwright", "Update")], "one owner, as after the create"


async def test_adr_0002_a_merge_patch_leaves_what_it_does_not_name(
    client: KubeClient, crd_server: Server, namespace: str
) -> None:
    await client.create(deployment(namespace))
    crd_server.ok("scale", "deployment", "digits", "-n", namespace, "--replicas=7")
    crd_server.ok("annotate", "deployment", "digits", "-n", namespace, "team=vision")
    without = deployment(namespace, minReadySeconds=3)
    del without["spec"]["replicas"]
    patched = await client.patch(without)
    assert patched["spec"]["replicas"] == 7
    assert patched["spec"]["minReadySeconds"] == 3
    assert patched["metadata"]["annotations"]["team"] == "vision"


async def test_adr_0002_a_merge_patch_with_a_uid_hits_no_other_object(
    client: KubeClient, crd_server: Server, namespace: str
) -> None:
    service = ours(namespace)
    service["metadata"]["uid"] = "0f5f1e1e-0000-0000-0000-000000000000"
    with pytest.raises(api_errors.NotFound):
        await client.patch(service)
    crd_server.ok("create", "-f", "-", objects=foreign(namespace))
    before = await client.get(kinds.SERVICE, namespace, "digits")
    with pytest.raises(api_errors.Conflict):
        await client.patch(service)
    assert await client.get(kinds.SERVICE, namespace, "digits") == before


@pytest.mark.parametrize(
    ("wrong", "field"), [({"bogus": 1}, "spec.bogus"), ({"replicas": -1}, "spec.replicas")], ids=["unknown", "value"]
)
async def test_a_patch_against_the_schema_is_invalid_by_field(
    client: KubeClient, namespace: str, wrong: Object, field: str
) -> None:
    await client.create(deployment(namespace))
    with pytest.raises(api_errors.Invalid) as caught:
        await client.patch(deployment(namespace, **wrong))
    assert field in fields(caught.value)


async def test_a_patch_on_an_old_state_is_a_conflict(client: KubeClient, namespace: str) -> None:
    first = await client.create(deployment(namespace))
    await client.patch(deployment(namespace, replicas=3))
    late = deployment(namespace, replicas=4)
    late["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"]
    with pytest.raises(api_errors.Conflict):
        await client.patch(late)


async def test_a_patch_of_the_wrong_type_says_so_in_one_line(client: KubeClient, namespace: str) -> None:
    await client.create(deployment(namespace))
    with pytest.raises(api_errors.Invalid) as caught:
        await client.patch(deployment(namespace, replicas="many"))
    assert len(caught.value.message) < 300, caught.value.message
