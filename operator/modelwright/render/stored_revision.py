"""Identifies a revision, and renders the ControllerRevision that stores its pod template and ports.

The template is rendered once, when the revision is first needed. From then on the stored one is used, so that neither
a new operator nor an edited runtime restarts a serving model.
"""

import copy
from collections.abc import Mapping
from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.model import Serving, pod_shape
from modelwright.api.v1alpha1.version import VersionContent
from modelwright.core.authors import hash_spec
from modelwright.core.revision import Revision
from modelwright.core.runtime_choice import RuntimeChoice
from modelwright.render.child_metadata import child_metadata
from modelwright.render.fetch_container import CacheProof
from modelwright.render.images import Images
from modelwright.render.pod_template import pod_template
from modelwright.render.revision_input import RevisionInput

Json = dict[str, Any]


def identify_revision(
    version: str, content: VersionContent, digest: str, choice: RuntimeChoice, serving: Serving
) -> Revision:
    """Return the revision of this version, runtime and pod shape. Renaming or editing the runtime's content doesn't
    change it; choosing another runtime does."""
    shape = pod_shape(serving.model_copy(update={"runtime_ref": None}))
    identity = {
        "version": version,
        "artifact": content.artifact.wire() | {"digest": digest},
        "runtime": [choice.runtime.kind, choice.runtime.name],
        "serving": shape,
    }
    return Revision(version, names.content_hash(identity))


def render_stored_revision(model: Json, inputs: RevisionInput, images: Images, number: int) -> Json:
    """Render the ControllerRevision that stores everything needed to run a revision again. Raises MergeError for a
    podTemplate that cannot be merged. `number` counts the Model's revisions, for display."""
    revision, choice = inputs.revision, inputs.choice
    template = pod_template(model, inputs, images)
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": child_metadata(model, revision, names.revision_name(model["metadata"]["name"], revision.hash)),
        "revision": number,
        "data": {
            "version": revision.version,
            "digest": inputs.digest,
            "runtime": runtime_entry(choice),
            "inputs": render_inputs(choice, images, inputs.proof),
            "ports": choice.runtime.spec.ports.wire(),
            "readinessPath": readiness_path(template),
            "template": template,
        },
    }


def runtime_entry(choice: RuntimeChoice) -> Json:
    """Return the stored description of the runtime that a template was rendered with."""
    runtime = choice.runtime
    entry = {"kind": runtime.kind, "name": runtime.name, "reason": choice.reason, "content": hash_spec(runtime.spec)}
    return entry | ({"changedBy": runtime.spec.changed_by} if runtime.spec.changed_by is not None else {})


def copy_for_revision(stored: Json, revision: Revision) -> Json:
    """Copy a stored revision for other pods of the same content, named by `revision`."""
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


def render_inputs(choice: RuntimeChoice, images: Images, proof: CacheProof | None = None) -> Json:
    """Return the other inputs of a stored template: when they differ from the current ones, the revision is
    outdated."""
    return {
        "runtimeGeneration": choice.runtime.generation,
        "fetchImage": images.fetch,
        "fetchEnv": dict(images.fetch_env),
        "cache": (proof or CacheProof()).wire(),
        **({"podSecurity": "Platform"} if images.platform_ids else {}),
    }


def outdated_reason(
    stored: Mapping[str, Any], choice: RuntimeChoice, images: Images, proof: CacheProof | None = None
) -> str | None:
    """Explain why rendering this revision again would differ from the stored one; None when it would not."""
    was, now = stored["data"].get("inputs", {}), render_inputs(choice, images, proof)
    changed = []
    if was.get("runtimeGeneration") != now["runtimeGeneration"] and not _same_content(stored, choice):
        changed.append(f"{choice.runtime.kind} {choice.runtime.name} was edited")
    if was.get("fetchImage") != now["fetchImage"]:
        changed.append("the operator brings another fetch image")
    if was.get("fetchEnv", {}) != now["fetchEnv"]:
        changed.append("the administrator has changed the environment of fetch containers")
    if was.get("cache", CacheProof().wire()) != now["cache"]:
        changed.append("the verification of the cache has changed")
    if was.get("podSecurity") != now.get("podSecurity"):
        changed.append("the administrator has changed how pods get their users and groups")
    if not changed:
        return None
    return f"{' and '.join(changed)} since this revision was created; set spec.serving.restartedAt to apply it"


def _same_content(stored: Mapping[str, Any], choice: RuntimeChoice) -> bool:
    """Return whether an edit of the runtime changed only who is responsible for it."""
    return bool(stored["data"].get("runtime", {}).get("content") == hash_spec(choice.runtime.spec))


def readiness_path(template: Mapping[str, Any]) -> str | None:
    """Return the HTTP path of the rendered readiness probe of the model container; None without one."""
    for container in template["spec"]["containers"]:
        if container["name"] == names.MODEL_CONTAINER:
            path = container.get("readinessProbe", {}).get("httpGet", {}).get("path")
            return path if isinstance(path, str) else None
    return None
