"""Renders the pod template of a revision: fetched model, runtime's container, probe, security, draining, overrides."""

from typing import Any

from modelwright.api import names
from modelwright.api.v1alpha1.model import Serving, pod_template_patch
from modelwright.api.v1alpha1.runtime import RuntimeSpec
from modelwright.render import credential_guard, fetch_container, user_pod_template
from modelwright.render.child_metadata import serving_labels
from modelwright.render.images import Images
from modelwright.render.revision_input import RevisionInput
from modelwright.render.strategic_merge import MergeError, strategic_merge

Json = dict[str, Any]

_CONTAINER_LISTS = ("initContainers", "containers")


def pod_template(model: Json, inputs: RevisionInput, images: Images) -> Json:
    """Render the PodTemplateSpec. Raises MergeError when spec.serving.podTemplate cannot be merged into it."""
    revision, serving, runtime = inputs.revision, inputs.serving, inputs.choice.runtime.spec
    name = model["metadata"]["name"]
    directory = runtime.model_path.replace("$(MODEL_NAME)", name)
    fetch, volumes, mount = _model_files(inputs, images, directory)
    account = serving.service_account_name or inputs.content.artifact.service_account_name
    environment = _model_variables(model, inputs, directory)
    template: Json = {
        "metadata": {
            "labels": serving_labels(name, revision),
            "annotations": {names.ANNOTATION_VERSION_NAME: revision.version, **_scrape_annotations(runtime)},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **({"serviceAccountName": account} if account else {}),
            "securityContext": fetch_container.restricted_pod_security(images),
            "terminationGracePeriodSeconds": serving.drain_seconds + serving.max_request_seconds,
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": names.revision_selector(name, revision.hash)},
                }
            ],
            "initContainers": [fetch],
            "containers": [_model_container(name, serving, runtime, environment, mount)],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes, *(volume.wire() for volume in runtime.volumes)],
        },
    }
    patch = pod_template_patch(serving)
    if patch:
        _refuse_second_account(serving, patch)
        ours = {entry["name"] for key in _CONTAINER_LISTS for entry in template["spec"][key]}
        rendered = template["spec"]["volumes"]
        template = strategic_merge(template, patch, "spec.serving.podTemplate")
        if isinstance(template.get("spec"), dict):
            credential_guard.check_credentials_kept(template["spec"], fetch, rendered, "spec.serving.podTemplate.spec")
        _secure_containers(template, ours)
        for entry in user_pod_template.typed_member(
            template["spec"], "initContainers", list, "spec.serving.podTemplate.spec"
        ):
            if entry["name"] == fetch["name"]:
                fetch_container.set_variables(entry, images.fetch_env)
        # The selector of the Deployment depends on these.
        template["metadata"]["labels"] = {**template["metadata"].get("labels", {}), **serving_labels(name, revision)}
    return template


def _model_files(inputs: RevisionInput, images: Images, directory: str) -> tuple[Json, list[Json], Json]:
    """Render the init container that fetches or verifies the artifact, its volumes, and the model server's mount."""
    serving, artifact, digest = inputs.serving, inputs.content.artifact, inputs.digest
    if serving.cache is None:
        fetch, volumes = fetch_container.fetch_container(artifact, digest, images, cached=None)
        volumes.append({"name": fetch_container.MODEL_VOLUME, "emptyDir": {}})
        return fetch, volumes, {"name": fetch_container.MODEL_VOLUME, "mountPath": directory, "readOnly": True}
    proof = inputs.proof or fetch_container.CacheProof()
    volume = fetch_container.cache_volume(serving.cache.persistent_volume_claim)
    if serving.service_account_name is not None:
        fetch, volumes = fetch_container.check_container(artifact, digest, images, proof), [volume]
    else:
        fetch, volumes = fetch_container.fetch_container(artifact, digest, images, cached=proof)
        volumes.append(volume)
    return fetch, volumes, fetch_container.cached_content_mount(digest, artifact, directory)


def _refuse_second_account(serving: Serving, patch: Json) -> None:
    spec = patch.get("spec")
    for key in ("serviceAccountName", "serviceAccount"):
        if serving.service_account_name is not None and isinstance(spec, dict) and key in spec:
            raise MergeError(
                f"spec.serving.podTemplate.spec.{key}: spec.serving.serviceAccountName names the ServiceAccount: leave "
                "one of them out"
            )


def _secure_containers(template: Json, ours: set[str]) -> None:
    """Set our default security context on the author's own containers."""
    spec = template.get("spec")
    for key in _CONTAINER_LISTS:
        path = f"spec.serving.podTemplate.spec.{key}"
        entries = (
            user_pod_template.typed_member(spec, key, list, "spec.serving.podTemplate.spec")
            if isinstance(spec, dict)
            else []
        )
        for entry in entries:
            if entry["name"] not in ours:
                authored_context = user_pod_template.typed_member(entry, "securityContext", dict, path)
                entry["securityContext"] = strategic_merge(
                    fetch_container.user_container_security(), authored_context, f"{path}.securityContext"
                )


def _model_container(name: str, serving: Serving, runtime: RuntimeSpec, environment: list[Json], mount: Json) -> Json:
    # A runtime may serve metrics on its HTTP port; the API server wants each port once.
    ports = {port: key for key, port in reversed(runtime.ports.model_dump(exclude_none=True).items())}
    base: Json = {
        "name": names.MODEL_CONTAINER,
        "ports": [{"name": ports[port], "containerPort": port, "protocol": "TCP"} for port in reversed(ports)],
        "volumeMounts": [mount, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a path in the pod
        "securityContext": fetch_container.restricted_container_security(),
        "lifecycle": {"preStop": {"sleep": {"seconds": serving.drain_seconds}}},
        # The last log lines of a model that fails to load are shown in its status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if serving.drain_seconds == 0:
        del base["lifecycle"]
    probe = _readiness_probe(name, runtime)
    if probe is not None:
        base["readinessProbe"] = probe
    container = strategic_merge(base, runtime.container_manifest(), "spec.container")
    # Ours and the format's come first and take precedence: $(VAR) only sees variables earlier in the list.
    rendered_names = {entry["name"] for entry in environment}
    container["env"] = environment + [
        entry for entry in container.get("env", []) if entry["name"] not in rendered_names
    ]
    if serving.resources is not None:
        container["resources"] = strategic_merge(container.get("resources"), serving.resources.wire())
    return dict(container)


def _model_variables(model: Json, inputs: RevisionInput, directory: str) -> list[Json]:
    """Return the variables of every model container, and the runtime's for the format, which cannot override ours."""
    ports = inputs.choice.runtime.spec.ports
    values = {
        "MODEL_NAME": model["metadata"]["name"],
        "MODEL_NAMESPACE": model["metadata"]["namespace"],
        "MODEL_VERSION": inputs.revision.version,
        "MODEL_REVISION": inputs.revision.hash,
        "MODEL_FORMAT": inputs.content.artifact.format.name,
        "MODEL_DIR": directory,
        "MODEL_HTTP_PORT": str(ports.http),
    }
    if inputs.serving.allow_implementation:
        values["MODEL_ALLOW_IMPLEMENTATION"] = "true"
    if ports.grpc is not None:
        values["MODEL_GRPC_PORT"] = str(ports.grpc)
    if ports.metrics is not None:
        values["MODEL_METRICS_PORT"] = str(ports.metrics)
    for entry in inputs.choice.format.env:
        values.setdefault(entry.name, entry.value)
    return [{"name": key, "value": value} for key, value in values.items()]


def _readiness_probe(name: str, runtime: RuntimeSpec) -> Json | None:
    """Render the readiness probe: a loaded model, not just an open port. None when the container has its own probe."""
    readiness = runtime.effective_readiness
    if readiness is None:
        return None
    probe = readiness.wire()
    probe["httpGet"]["path"] = probe["httpGet"]["path"].replace("$(MODEL_NAME)", name)
    return probe


def _scrape_annotations(runtime: RuntimeSpec) -> dict[str, str]:
    if runtime.ports.metrics is None:
        return {}
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(runtime.ports.metrics),
        "prometheus.io/path": "/metrics",
    }
