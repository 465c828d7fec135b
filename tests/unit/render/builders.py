"""A Model, a version and a runtime for the tests of the renderers."""

from typing import Any

from modelwright.api.v1alpha1.model import Model
from modelwright.api.v1alpha1.runtime import ClusterModelRuntime
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.core.revision import Revision
from modelwright.core.runtime_choice import RuntimeCandidate, RuntimeChoice, choose_runtime
from modelwright.render import stored_revision
from modelwright.render.images import Images
from modelwright.render.revision_input import RevisionInput
from tests.lib import objects

Json = dict[str, Any]
IMAGES = Images("example.com/fetch:1", operator="example.com/operator:1")
DIGEST = "sha256:" + "d" * 64


def raw_model(**spec: Any) -> Json:
    """A Model as the API server gives it, with labels and annotations that no child may copy."""
    obj = objects.model("vision", version="digits-v1", **spec)
    obj["metadata"] |= {
        "uid": "model-uid",
        "generation": 1,
        "labels": {"app.kubernetes.io/instance": "shop"},
        "annotations": {"argocd.argoproj.io/tracking-id": "shop:x"},
    }
    return obj


def parsed(raw: Json) -> Model:
    """The same, typed."""
    return Model.parse(raw)


def rollout(name: str = "digits-7", uid: str = "rollout-uid") -> Json:
    """A ModelRollout of the Model, as the API server gives it."""
    return {
        "apiVersion": "modelwright.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": name, "namespace": "vision", "uid": uid, "labels": {"app.kubernetes.io/instance": "shop"}},
        "spec": {"modelRef": {"name": "digits"}},
    }


def version(**artifact: Any) -> ModelVersion:
    """Version digits-v1."""
    members = {"uri": "s3://models/digits/1", "format": {"name": "plain", "version": "1"}, "digest": None, **artifact}
    return ModelVersion.parse(objects.version("vision", "digits-v1", **members))


def choice(**spec: Any) -> RuntimeChoice:
    """The runtime `plain`, chosen for the version above."""
    runtime = ClusterModelRuntime.parse(objects.runtime(**spec))
    chosen = choose_runtime(
        version().spec.artifact.format, None, [RuntimeCandidate(runtime.kind, runtime.name, runtime.spec, 1)]
    )
    assert isinstance(chosen, RuntimeChoice)
    return chosen


def identify(raw: Json, chosen: RuntimeChoice | None = None, wanted: ModelVersion | None = None) -> Revision:
    """The revision of a Model."""
    found = wanted or version()
    return stored_revision.identify_revision(
        found.name, found.spec, DIGEST, chosen or choice(), parsed(raw).spec.serving
    )


def stored(
    raw: Json, chosen: RuntimeChoice | None = None, wanted: ModelVersion | None = None, images: Images = IMAGES
) -> Json:
    """The ControllerRevision of a Model."""
    found, taken = wanted or version(), chosen or choice()
    inputs = RevisionInput(identify(raw, taken, found), found.spec, DIGEST, taken, parsed(raw).spec.serving)
    return stored_revision.render_stored_revision(raw, inputs, images, 1)


def template(
    raw: Json, chosen: RuntimeChoice | None = None, wanted: ModelVersion | None = None, images: Images = IMAGES
) -> Json:
    """The pod template of a Model."""
    rendered: Json = stored(raw, chosen, wanted, images)["data"]["template"]
    return rendered


def container(raw: Json, chosen: RuntimeChoice | None = None) -> Json:
    """The model container of a Model."""
    return next(c for c in template(raw, chosen)["spec"]["containers"] if c["name"] == "model")
