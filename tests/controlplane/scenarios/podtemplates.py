"""What users may change of the pods, what is refused, and how large and long things may be."""

from modelwright.kube import kinds
from tests.controlplane.scenarios import Space, scenario
from tests.lib.api import NAMESPACE, Refused
from tests.lib.kstatus import conditions


@scenario
async def an_unknown_field_is_refused_by_path_and_what_serves_is_untouched(space: Space) -> None:
    await space.serve()
    before = await space.child(kinds.DEPLOYMENT)
    bad = {"spec": {"containers": [{"name": "model", "imagee": "x"}]}}
    await space.apply(space.model(serving={"podTemplate": bad}))
    model = await space.stalls("InvalidPodTemplate", says="imagee")
    assert model["status"]["serving"]["version"] == "v1"
    assert conditions(model)["Available"]["status"] == "True"
    assert (await space.child(kinds.DEPLOYMENT))["metadata"]["generation"] == before["metadata"]["generation"]
    assert len(await space.children(kinds.CONTROLLER_REVISION)) == 1
    directive = {"spec": {"containers": [{"$patch": "replace"}]}}
    await space.apply(space.model(serving={"podTemplate": directive}))
    await space.stalls("InvalidPodTemplate", says="spec.serving.podTemplate.spec.containers[0]")
    good = {"spec": {"containers": [{"name": "model", "image": "example.com/server:3"}]}}
    await space.apply(space.model(serving={"podTemplate": good}))
    await space.ready()
    await space.only(kinds.DEPLOYMENT, 1)
    template = (await space.child(kinds.DEPLOYMENT))["spec"]["template"]["spec"]
    assert template["containers"][0]["image"] == "example.com/server:3"


@scenario
async def a_null_deletes_and_sidecars_and_labels_are_added(space: Space) -> None:
    patch = {
        "metadata": {"labels": {"team": "vision", "modelwright.dev/model": "other"}, "annotations": {"a": "b"}},
        "spec": {
            "topologySpreadConstraints": None,
            "containers": [
                {"name": "model", "lifecycle": None, "env": [{"name": "MORE", "value": "1"}]},
                {"name": "sidecar", "image": "example.com/sidecar:1"},
            ],
        },
    }
    await space.serve(serving={"podTemplate": patch})
    template = (await space.child(kinds.DEPLOYMENT))["spec"]["template"]
    assert "topologySpreadConstraints" not in template["spec"]
    assert template["metadata"]["labels"]["team"] == "vision"
    assert template["metadata"]["labels"]["modelwright.dev/model"] == "digits"
    model, sidecar = template["spec"]["containers"]
    assert "lifecycle" not in model
    assert {"name": "MORE", "value": "1"} in model["env"]
    assert sidecar["image"] == "example.com/sidecar:1"


@scenario
async def a_restricted_namespace_takes_our_pods_and_refuses_privileged_ones(space: Space) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    await space.api.patch(NAMESPACE, None, space.namespace, {"metadata": {"labels": label}})
    await space.serve(serving={"replicas": 2})
    bad = {
        "spec": {
            "containers": [{"name": "model", "securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}]
        }
    }
    await space.apply(space.model(serving={"replicas": 2, "podTemplate": bad}))
    model = await space.stalls("PodsForbidden", says="violates PodSecurity")
    assert conditions(model)["Available"]["status"] == "True"
    assert model["status"]["failure"]["reason"] == "PodsForbidden"
    await space.apply(space.model(serving={"replicas": 2}))
    await space.ready(version="v1")
    await space.only(kinds.DEPLOYMENT, 1)


@scenario
async def objects_of_a_megabyte_are_refused_clearly(space: Space) -> None:
    await space.serve()
    before = await space.child(kinds.DEPLOYMENT)
    huge = space.version("v2")
    huge["spec"]["card"] = {"summary": "x" * 2**20}
    assert "spec.card.summary" in await _refused(space, huge)
    huge["spec"]["card"] = {"extra": "x" * 2**20}
    await _refused(space, huge)
    annotated = {"metadata": {"annotations": {"note": "x" * 2**20}}}
    await space.apply(space.model(serving={"podTemplate": annotated}))
    model = await space.stalls("InvalidPodTemplate", says="annotations")
    assert (await space.child(kinds.DEPLOYMENT))["metadata"]["generation"] == before["metadata"]["generation"]
    assert len(str(model["status"])) < 20000
    await space.apply(space.model(serving={"podTemplate": _variables(700, size=2000)}))
    # What the API server takes, serves.
    await space.ready(version="v1")
    larger = space.model(serving={"podTemplate": _variables(700, size=6000)})
    assert "too large" in await _refused(space, larger)
    many = space.model(serving={"podTemplate": _variables(1400, size=10)})
    assert "put variables into a ConfigMap" in await _refused(space, many)
    await space.apply(space.model())
    await space.ready(version="v1")


def _variables(number: int, size: int) -> dict:
    variables = [{"name": f"V{n}", "value": "x" * size} for n in range(number)]
    return {"spec": {"containers": [{"name": "model", "env": variables}]}}


async def _refused(space: Space, obj: dict) -> str:
    try:
        await space.apply(obj)
    except Refused as refused:
        return str(refused)
    raise AssertionError("the API server took it")


@scenario
async def names_at_their_limits_serve(space: Space) -> None:
    name = "m" * 50
    version = "v" * 200 + "." + "w" * 52
    assert len(version) == 253
    await space.serve(name=name, version=version)
    (deployment,) = await space.only(kinds.DEPLOYMENT, 1, name)
    assert deployment["metadata"]["annotations"]["modelwright.dev/version-name"] == version
    model = await space.get(kinds.MODEL, name)
    assert model["status"]["serving"]["version"] == version
    assert "metadata.name" in await _refused(space, space.model("m" * 51))
