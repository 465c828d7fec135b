"""Models behind a gateway: the route, who may have it, and what the gateway says to it."""

from modelwright.api import names
from modelwright.kube import kinds
from tests.controlplane.scenarios import Space, scenario
from tests.lib import objects
from tests.lib.kstatus import conditions, is_ready


def _weights(route: dict) -> list[tuple[str, int]]:
    return [(b["name"], b["weight"]) for rule in route["spec"]["rules"] for b in rule["backendRefs"]]


@scenario
async def a_route_follows_the_version_and_its_path_is_taken_off(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    endpoint = objects.endpoint(space.namespace, hostnames=["models.example.com"], pathPrefix="/vision/digits")
    model = await space.serve(endpoint=endpoint)
    assert model["status"]["url"] == "http://models.example.com/vision/digits"
    route = await space.child(kinds.HTTP_ROUTE)
    assert _weights(route) == [(f"digits-{model['status']['serving']['revision']}", 100)]
    assert route["spec"]["rules"][0]["filters"][0]["type"] == "URLRewrite"
    await space.apply(space.version("v2"), space.model(version="v2", endpoint=endpoint))
    model = await space.ready(version="v2")
    revision = model["status"]["serving"]["revision"]
    assert _weights(await space.child(kinds.HTTP_ROUTE)) == [(f"digits-{revision}", 100)]
    assert (await space.get(kinds.SERVICE, "digits"))["spec"]["selector"][names.LABEL_REVISION] == revision
    await space.only(kinds.SERVICE, 2)


@scenario
async def every_edit_of_an_endpoint_reaches_its_route(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    whole = {"name": "models", "namespace": space.namespace, "sectionName": "http", "port": 80}
    full = {"parentRefs": [whole], "hostnames": ["a.example.com", "b.example.com"], "pathPrefix": "/x"}
    await space.serve(endpoint=full)
    for edited in (
        {**full, "stripPathPrefix": False},
        {**full, "hostnames": ["b.example.com"]},
        {**full, "parentRefs": [{"name": "models", "namespace": space.namespace}]},
        {"parentRefs": [whole]},
        full,
    ):
        await space.apply(space.model(endpoint=edited))
        await space.ready()
        spec = (await space.child(kinds.HTTP_ROUTE))["spec"]
        refs = [{k: v for k, v in ref.items() if k not in ("group", "kind")} for ref in spec["parentRefs"]]
        assert refs == edited["parentRefs"]
        assert spec.get("hostnames", []) == edited.get("hostnames", [])
        assert spec["rules"][0]["matches"][0]["path"]["value"] == edited.get("pathPrefix", "/")
        rewritten = edited.get("pathPrefix", "/") != "/" and edited.get("stripPathPrefix", True)
        assert [f["type"] for f in spec["rules"][0].get("filters", [])] == (["URLRewrite"] if rewritten else [])
    await space.apply(space.model())
    model = await space.until(kinds.MODEL, "digits", lambda m: is_ready(m) and ".svc" in m["status"]["url"], "no route")
    assert await space.children(kinds.HTTP_ROUTE) == []
    assert [s["metadata"]["name"] for s in await space.only(kinds.SERVICE, 1)] == ["digits"]
    assert conditions(model)["Available"]["status"] == "True"


@scenario
async def an_endpoint_may_be_added_to_a_model_that_serves(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    await space.serve()
    before = await space.child(kinds.DEPLOYMENT)
    await space.apply(space.model(endpoint=objects.endpoint(space.namespace)))
    await space.until(kinds.MODEL, "digits", lambda m: is_ready(m) and "192.0.2.1" in m["status"]["url"], "with a URL")
    assert (await space.child(kinds.DEPLOYMENT))["metadata"]["generation"] == before["metadata"]["generation"]


@scenario
async def a_gateway_that_refuses_is_quoted_and_one_that_lags_is_waited_for(space: Space) -> None:
    space.gateway.ignores.add(space.namespace)
    await space.gateway.set_up(space.namespace)
    await space.apply(space.version("v1"), space.model(endpoint=objects.endpoint(space.namespace)))
    await space.waits("WaitingForRoute")
    space.gateway.refuses.add(space.namespace)
    space.gateway.ignores.remove(space.namespace)
    await space.stalls("RouteNotAccepted", says="the listener does not let this namespace in")
    space.gateway.refuses.remove(space.namespace)
    await space.ready()
    # Nothing of the route has changed, and the gateway thinks otherwise of it.
    space.gateway.refuses.add(space.namespace)
    model = await space.stalls("RouteNotAccepted")
    assert model["status"]["serving"]["version"] == "v1"
    space.gateway.refuses.remove(space.namespace)
    await space.ready()


@scenario
async def while_a_gateway_lags_the_old_revision_stays(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    endpoint = objects.endpoint(space.namespace)
    await space.serve(endpoint=endpoint)
    space.gateway.ignores.add(space.namespace)
    await space.apply(space.version("v2"), space.model(version="v2", endpoint=endpoint))
    model = await space.waits("WaitingForRoute")
    await space.until(kinds.MODEL, "digits", lambda m: _promoting(m["status"]), "the route is written")
    await space.pass_over()
    assert len(await space.children(kinds.DEPLOYMENT)) == 2
    model = await space.get(kinds.MODEL, "digits")
    assert model["status"]["serving"]["version"] == "v1"
    space.gateway.ignores.remove(space.namespace)
    await space.ready(version="v2")
    await space.only(kinds.DEPLOYMENT, 1)


def _promoting(status: dict) -> bool:
    return status["rollout"]["state"] == "Promoting" and len(status["traffic"]) == 1


@scenario
async def of_two_models_that_want_one_place_the_older_keeps_it_until_it_goes(space: Space) -> None:
    await space.gateway.set_up(space.namespace)
    endpoint = objects.endpoint(space.namespace, hostnames=["shared.example.com"], pathPrefix="/same")
    await space.serve(name="older", version="old", endpoint=endpoint)
    await space.apply(
        space.version("young", model="younger"), space.model("younger", version="young", endpoint=endpoint)
    )
    model = await space.stalls("RouteConflict", "younger", says=f"{space.namespace}/older")
    assert await space.api.get(kinds.HTTP_ROUTE, space.namespace, "younger") is None
    await space.until(
        kinds.MODEL, "younger", lambda m: conditions(m)["Available"]["status"] == "True", "answers inside the cluster"
    )
    await space.ready("older", version="old")
    await space.api.delete(kinds.MODEL, space.namespace, "older")
    model = await space.ready("younger", version="young")
    assert model["status"]["url"] == "http://shared.example.com/same"
