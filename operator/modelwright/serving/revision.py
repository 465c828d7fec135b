"""A revision: its identity, and the pod template and ports stored for it in a ControllerRevision.

The template is rendered once, when the revision is first wanted. From then on the stored one is what runs, so that
neither a new operator nor an edited runtime restarts a model that serves.
"""

import copy
from collections.abc import Mapping
from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.model import ModelSpec, Serving, pod_template_patch
from modelwright.api.v1alpha1.version import VersionContent
from modelwright.core.revision import Revision
from modelwright.core.runtimes import Choice
from modelwright.serving.images import Images
from modelwright.serving.metadata import child_metadata
from modelwright.serving.pod import pod_template

Json = dict[str, Any]

# Replicas, autoscaling and the time-out say how many and how long, not what a pod is.
_NOT_POD_SHAPING = {"replicas", "autoscaling", "start_timeout", "runtime_ref", "pod_template"}


def identify(version: str, content: VersionContent, digest: str, choice: Choice, serving: Serving) -> Revision:
    """The revision that this version, runtime and pod shape make. Renaming or editing the runtime's content doesn't
    change it; choosing another runtime does."""
    shape = serving.model_dump(mode="json", by_alias=True, exclude=_NOT_POD_SHAPING, exclude_defaults=True)
    if patch := pod_template_patch(serving):
        shape["podTemplate"] = patch
    identity = {
        "version": version,
        "artifact": content.artifact.wire() | {"digest": digest},
        "runtime": [choice.runtime.kind, choice.runtime.name],
        "serving": shape,
    }
    return Revision(version, names.content_hash(identity))


def store(
    model: Json, spec: ModelSpec, version: str, content: VersionContent, digest: str, choice: Choice,
    revision: Revision, images: Images, number: int,
) -> Json:  # fmt: skip
    """The ControllerRevision that keeps everything needed to run `revision` again. Raises MergeError for a podTemplate
    that can't be merged. `number` counts the Model's revisions, for people."""
    template = pod_template(model, spec.serving, version, content, digest, choice, revision, images)
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": child_metadata(model, revision, names.revision_name(model["metadata"]["name"], revision.hash)),
        "revision": number,
        "data": {
            "version": version,
            "digest": digest,
            "runtime": {"kind": choice.runtime.kind, "name": choice.runtime.name, "reason": choice.reason},
            "inputs": inputs(choice, images),
            "ports": choice.runtime.spec.ports.wire(),
            "readinessPath": readiness_path(template),
            "template": template,
        },
    }


def fresh(stored: Json, revision: Revision) -> Json:
    """What is stored of a revision, for other pods of the same content that go by the name of `revision`."""
    copied: Json = copy.deepcopy(stored)
    template = copied["data"]["template"]
    selected = [c["labelSelector"]["matchLabels"] for c in template["spec"].get("topologySpreadConstraints", [])]
    for labels in (template["metadata"]["labels"], *selected):
        if names.LABEL_REVISION in labels:
            labels[names.LABEL_REVISION] = revision.hash
    for container in template["spec"]["containers"]:
        for entry in container.get("env", []):
            if entry["name"] == "MODEL_REVISION":
                entry["value"] = revision.hash
    return copied


def inputs(choice: Choice, images: Images) -> Json:
    """What else went into a stored template: when it differs from today's, the revision is outdated."""
    return {"runtimeGeneration": choice.runtime.generation, "fetchImage": images.fetch}


def outdated(stored: Mapping[str, Any], choice: Choice, images: Images) -> str | None:
    """Why a fresh rendering of this revision would differ from the stored one; None when it wouldn't."""
    was, now = stored["data"].get("inputs", {}), inputs(choice, images)
    changed = []
    if was.get("runtimeGeneration") != now["runtimeGeneration"]:
        changed.append(f"{choice.runtime.kind} {choice.runtime.name} was edited")
    if was.get("fetchImage") != now["fetchImage"]:
        changed.append("the operator brings another fetch image")
    if not changed:
        return None
    return f"{' and '.join(changed)} since this revision was made; set spec.serving.restartedAt to take it up"


def readiness_path(template: Mapping[str, Any]) -> str | None:
    """The HTTP path that says the model is loaded, as rendered into the model container; None without one."""
    for container in template["spec"]["containers"]:
        if container["name"] == names.MODEL_CONTAINER:
            path = container.get("readinessProbe", {}).get("httpGet", {}).get("path")
            return path if isinstance(path, str) else None
    return None
