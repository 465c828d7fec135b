"""KServe: converts InferenceService, LLMInferenceService and TrainedModel; gives advice for other kinds."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.cli.imports import artifacts, rollout_policies, serving_pods
from modelwright.cli.imports.fields import Fields, Json
from modelwright.cli.imports.foreign_objects import ForeignObject, ImportContext, Provider

_FRAMEWORKS = (
    "sklearn",
    "xgboost",
    "lightgbm",
    "tensorflow",
    "pytorch",
    "onnx",
    "triton",
    "huggingface",
    "pmml",
    "paddle",
    "mlflow",
)
_SPOKEN_V1 = ("sklearn", "xgboost", "lightgbm")
"""Formats that KServe serves by protocol v1 unless `protocolVersion` is set; the runtimes here use V2."""
_RUNTIMES = {
    "kserve-mlserver": "mlserver",
    "kserve-tritonserver": "triton",
    "kserve-tensorflow-serving": "tensorflow-serving",
    "kserve-huggingfaceserver": "huggingface",
}
_OWN_ANNOTATIONS = (
    "serving.kserve.io/",
    "serving.kubeflow.org/",
    "autoscaling.knative.dev/",
    "serving.knative.dev/",
    "networking.knative.dev/",
    "internal.serving.kserve.io/",
)
_POLICY_HINT = "moving step by step is a RolloutPolicy: name one in spec.rolloutPolicyRef"
_SEPARATE = (
    "stays a service of its own: run it as a Deployment and Service that ask the Model's Service, and send callers "
    "to it"
)
_HINTS = {
    "spec.predictor.containers": "a container of your own is a ModelRuntime here, and what it loads a ModelVersion: "
    "see the how-to on runtimes",
    "spec.transformer": _SEPARATE,
    "spec.explainer": _SEPARATE,
    "batcher": "batching is the runtime's matter: set it in the server's own settings (MLServer: "
    "MLSERVER_MODEL_MAX_BATCH_SIZE "
    "and MLSERVER_MODEL_MAX_BATCH_TIME in env)",
    "logger": "requests are observed with spec.monitoring of the Model; they aren't sent elsewhere",
    "containerConcurrency": "concurrency is the runtime's matter: set it in the server's own settings",
    "workerSpec": "models that span several nodes aren't served here, and what is imported is one pod: keep it "
    "with KServe",
    "worker": "models that span several nodes aren't served here, and what is imported is one pod: keep it with KServe",
    "spec.predictor.name": "names KServe's own objects",
    "spec.canary.predictor": "of a canary only the artifact is taken: how it is served is the Model's spec.serving",
    "spec.default": "is of an API that KServe has left: have KServe convert the object first",
    "prefill": "prefill and decode in pods of their own aren't served here: it stays with KServe, or one pod does both",
    "deploymentStrategy": "another version gets a revision of its own, and a RolloutPolicy moves the requests to it",
    "rolloutStrategy": "another version gets a revision of its own, and a RolloutPolicy moves the requests to it",
    "runtimeVersion": "the server's version is that of the runtime's image: see the how-to on runtimes",
    "spec.router.scheduler": "requests are divided by the Service: scheduling by prefix or load is a gateway's "
    "InferencePool, which isn't made here",
    "spec.router.ingress": "Models are reached by a Gateway: name one with --gateway",
    "spec.router.route.http": "the Model's route is its own: its hostnames and path are in spec.endpoint",
    "spec.router.route": "the Model makes a route of its own, with hostname and path of spec.endpoint",
    "spec.router.gateway": "which Gateway KServe takes by default isn't read: name one with --gateway",
    "spec.router.route.group": "services that share requests are versions of one Model here, moved by a RolloutPolicy",
    "spec.router.route.weight": "services that share requests are versions of one Model here, moved by a RolloutPolicy",
    "spec.baseRefs": "what an LLMInferenceServiceConfig adds isn't read: import the service with it merged, or put it "
    "into a ModelRuntime",
    "spec.parallelism": "is an argument of the server (--tensor-parallel-size and the like of vLLM): write a "
    "ModelRuntime with it",
    "spec.model.lora": "adapters aren't loaded by themselves: merge them into the model, or write a "
    "ModelRuntime that loads them",
    "spec.model.criticality": "is of the gateway's scheduler, which isn't made here",
    "spec.tracing": "is the server's matter: set it by env in spec.serving.podTemplate",
    "spec.storageInitializer": "each pod fetches its artifact, or takes it from spec.serving.cache",
    "spec.trustRemoteCode": "the shipped runtimes run no code of an artifact: write a ModelRuntime with the "
    "server's argument",
    "livenessProbe": "probes are the runtime's: write a ModelRuntime with others",
    "readinessProbe": "probes are the runtime's: write a ModelRuntime with others",
    "startupProbe": "probes are the runtime's; how long a start may take is spec.serving.startTimeout",
    "ports": "ports are the runtime's: write a ModelRuntime with others",
    "claims": "resource claims of a container go into a ModelRuntime",
    "terminationGracePeriodSeconds": "follows from spec.serving.drainSeconds and maxRequestSeconds",
}


def _model_labels(document: ForeignObject) -> dict[str, str]:
    return serving_pods.convert_labels(document.fields.child("metadata"), "labels")


def _pod_annotations(document: ForeignObject) -> dict[str, str]:
    """Return the annotations that KServe passes to pods; note KServe's own."""
    annotations = document.fields.child("metadata").child("annotations")
    for name in annotations.member_names():
        if name.startswith(_OWN_ANNOTATIONS):
            text = "tells KServe how to run it, and has no place here"
            if name.endswith("/stop"):
                text = "a Model is stopped by spec.serving.replicas: 0; it has no place here"
            annotations.note(name, text)
    metadata = document.fields.child("metadata")
    own = {name for name in annotations.member_names() if name.startswith(_OWN_ANNOTATIONS)}
    others = Fields(
        {"annotations": {k: v for k, v in metadata.child("annotations").value.items() if k not in own}},
        metadata.path,
        metadata.ledger,
    )
    return serving_pods.convert_labels(others, "annotations")


def _convert_service(document: ForeignObject, context: ImportContext) -> Sequence[Json]:
    spec, name = document.spec, document.name
    predictor = spec.child("predictor")
    found = _find_model(predictor)
    _note_containers(predictor)
    if found is None:
        predictor.note_all("has no model with a storageUri: nothing to import")
        return ()
    model, format_name = found
    artifact, runtime = _convert_artifact(document, model, format_name, predictor)
    version = artifacts.build_version(document, f"{name}-1", name, artifact)
    wanted: Json = {"version": {"name": f"{name}-1"}}
    annotations = _pod_annotations(document) | serving_pods.convert_labels(predictor, "annotations")
    serving = runtime | _convert_scaling(predictor)
    if (timeout := predictor.number("timeout")) is not None:
        serving["maxRequestSeconds"] = timeout
    sidecars = tuple(each for each in predictor.children("containers") if each.value.get("name") != "kserve-container")
    template = serving_pods.convert_pod_template(predictor, model, sidecars)
    metadata = {"labels": serving_pods.convert_labels(predictor, "labels"), "annotations": annotations}
    wanted["serving"] = serving | serving_pods.build_serving(serving_pods.convert_resources(model), template, metadata)
    wanted["endpoint"] = context.options.build_endpoint(name)
    if wanted["endpoint"] is None:
        document.note_object("no endpoint: callers reach the Service of the Model; name a Gateway with --gateway")
    others, policy = _convert_canaries(document, predictor)
    if policy:
        wanted["rolloutPolicyRef"] = {"name": name}
    return [version, *others, *policy, artifacts.build_model(document, name, wanted, _model_labels(document))]


def _note_containers(predictor: Fields) -> None:
    """Note containers in place, also when the service is not converted."""
    if predictor.value.get("containers") and _find_model(predictor) is None:
        predictor.note("containers", _HINTS["spec.predictor.containers"])


def _find_model(predictor: Fields) -> tuple[Fields, str] | None:
    for key in ("model", *_FRAMEWORKS):
        found = predictor.child(key)
        if any(source in found for source in ("storageUri", "storage", "storageUris")):
            named = found.child("modelFormat").text("name") if key == "model" else key
            return found, named
    return None


def _convert_artifact(document: ForeignObject, model: Fields, format_name: str, predictor: Fields) -> tuple[Json, Json]:
    """Build spec.artifact, and the runtime's part of spec.serving."""
    shape = model.child("modelFormat")
    uri = _convert_storage(model)
    artifact: Json = {"uri": uri, **artifacts.modelcar_path(model, "storageUri", uri)}
    place, key = (shape, "name") if "name" in shape else (model, "storageUri")
    artifact["format"] = artifacts.convert_format(format_name, shape.text("version"), place, key)
    account = predictor.text("serviceAccountName")
    if account:
        artifact["serviceAccountName"] = account
        predictor.note(
            "serviceAccountName",
            f"{account}'s identity in a cloud is used to fetch; Secrets bound to it are not read, so name the one with "
            "the store's keys in spec.artifact.credentialsSecretRef",
        )
    spoken = model.text("protocolVersion", "v1")
    if format_name in _SPOKEN_V1 and spoken == "v1":
        document.note_object(
            f"callers use protocol v1 (/v1/models/{document.name}:predict): the runtime here speaks V2 "
            f"(/v2/models/{document.name}/infer)"
        )
    elif spoken.startswith("grpc"):
        model.note("protocolVersion", "for gRPC at the gateway set spec.endpoint.protocol: GRPC")
    elif spoken not in ("v1", "v2"):
        model.note(
            "protocolVersion", f"{spoken}: the runtime here speaks its own protocol, see its ClusterModelRuntime"
        )
    return artifact, _convert_runtime(model, format_name)


def _convert_runtime(model: Fields, format_name: str) -> Json:
    named = model.text("runtime")
    ours = _RUNTIMES.get(named, "")
    if ours in artifacts.shipped_runtimes(format_name):
        return {"runtimeRef": {"kind": "ClusterModelRuntime", "name": ours}}
    model.note(
        "runtime",
        f"{named}: runtimes are chosen by format; where another is meant, name a ClusterModelRuntime in "
        "spec.serving.runtimeRef",
    )
    return {}


def _convert_storage(model: Fields) -> str:
    storage = model.child("storage")
    path = storage.text("path")
    found = ""
    if "storageUri" in model:
        found = artifacts.convert_address(model, "storageUri")
        found = f"{found.rstrip('/')}/{path.lstrip('/')}" if path else found
    elif "storageUris" in model:
        first, *others = model.children("storageUris")
        found = artifacts.convert_address(first, "uri")
        first.note("mountPath", "the artifact is where the runtime looks for it")
        for other in others:
            other.note_all("a version has one artifact: put the files together in one place")
    elif "storage" in model:
        found = _address_from_parameters(storage, path)
    storage.note(
        "key",
        f"{storage.text('key')} is an entry of the Secret storage-config: write what it says into a Secret with "
        "the keys "
        "that the how-to on artifacts lists, and name that in spec.artifact.credentialsSecretRef",
    )
    storage.note("schemaPath", "the schema of a model is its server's matter")
    return found


def _address_from_parameters(storage: Fields, path: str) -> str:
    given = storage.child("parameters")
    kind, bucket = given.text("type", "s3"), given.text("bucket")
    scheme = {"s3": "s3", "gcs": "gs", "gs": "gs"}.get(kind)
    if scheme and bucket:
        return f"{scheme}://{bucket}/{path.lstrip('/')}"
    storage.note_here(
        f"the bucket is named in the Secret storage-config, which isn't read: write {scheme or 's3'}://BUCKET/{path} "
        "into spec.artifact.uri"
    )
    return f"{scheme or 's3'}://BUCKET/{path.lstrip('/')}"


def _convert_scaling(predictor: Fields) -> Json:
    least, most = predictor.number("minReplicas"), predictor.number("maxReplicas")
    metrics = _scaling_metrics(predictor)
    found = serving_pods.convert_replicas(predictor, "minReplicas", least, most, metrics)
    if "autoscaling" not in found and metrics:
        predictor.note_here(
            "has metrics to scale by, and no maxReplicas above minReplicas: the number of pods is fixed"
        )
    return found


def _scaling_metrics(predictor: Fields) -> Json:
    metric, target = predictor.text("scaleMetric"), predictor.number("scaleTarget")
    kind = predictor.text("scaleMetricType", "Utilization")
    scaling = predictor.child("autoScaling")
    found = [] if metric not in ("cpu", "memory") or target is None else [_resource_metric(metric, kind, str(target))]
    if not found and (metric or target is not None):
        key = "scaleMetric" if metric else "scaleTarget"
        predictor.note(
            key, f"scaleMetric {metric or 'concurrency'}: pods are scaled by CPU; see spec.serving.autoscaling.metrics"
        )
    for each in scaling.children("metrics"):
        of, aim = each.child("resource"), each.child("resource").child("target")
        of_name = of.text("name")
        value = next((aim.text(key) for key in ("averageUtilization", "averageValue", "value") if key in aim), "")
        if each.text("type") == "Resource" and of_name in ("cpu", "memory") and value:
            found.append(_resource_metric(of_name, aim.text("type", "Utilization"), value))
        else:
            each.note_all(
                "a metric of another kind: write it into spec.serving.autoscaling.metrics as autoscaling/v2 has it"
            )
    behavior = scaling.take("behavior") if "behavior" in scaling else None
    return ({"metrics": found} if found else {}) | ({"behavior": behavior} if behavior else {})


def _resource_metric(name: str, kind: str, value: str) -> Json:
    aim: Json = {"type": kind}
    if kind == "Utilization":
        aim["averageUtilization"] = int(value) if value.isdigit() else value
    else:
        aim["averageValue"] = value
    return {"type": "Resource", "resource": {"name": name, "target": aim}}


def _convert_canaries(document: ForeignObject, predictor: Fields) -> tuple[list[Json], list[Json]]:
    """Build the versions of spec.canary, and the policy for the rollout."""
    name, spec = document.name, document.spec
    percent = predictor.number("canaryTrafficPercent")
    if isinstance(predictor.value.get("canary"), list | dict):
        predictor.note("canary", _POLICY_HINT)
    versions: list[Json] = []
    weights = [percent] if percent is not None else []
    if percent is not None:
        predictor.note(
            "canaryTrafficPercent",
            f"{percent} %, until somebody edits it, becomes a step of RolloutPolicy {name} before an approval; "
            "what has "
            "the rest of the requests is in no manifest: import it first, and then this one as the next version. "
            "See spec.author of a ModelVersion, without which no approval counts",
        )
    for canary in spec.children("canary"):
        other = canary.child("predictor")
        found = _find_model(other)
        share = canary.number("trafficPercent")
        if found is None or share is None:
            canary.note_all("has no trafficPercent, or no predictor with a model and a storageUri: nothing to import")
            continue
        called = f"{name}-{other.text('name') or len(versions) + 2}"
        artifact, _ = _convert_artifact(document, *found, other)
        versions.append(artifacts.build_version(document, called, name, artifact))
        weights.append(share)
        canary.note(
            "trafficPercent",
            f"{share} % is a step of RolloutPolicy {name}: it begins when spec.version.name of the Model is {called}, "
            "and waits for an approval, which needs spec.author of the ModelVersion",
        )
    steps = rollout_policies.StepsBuilder()
    for share in sorted({share for share in weights if 0 <= share < 100}):
        steps.set_weight(share)
        steps.add_approval()
    if not steps.steps:
        return versions, []
    document.note_object(
        f"RolloutPolicy {name} asks for no evidence: add spec.analysis, so that errors take a version back by "
        "themselves"
    )
    return versions, [rollout_policies.build_policy(document, name, {"strategy": {"steps": steps.steps}})]


def _convert_llm(document: ForeignObject, context: ImportContext) -> Sequence[Json]:
    spec, name = document.spec, document.name
    model = spec.child("model")
    uri = artifacts.convert_address(model, "uri")
    if not uri:
        document.note_object("spec.model has no uri: nothing to import")
        return ()
    model.note("name", "requests name the model as the runtime does: see the arguments of its ClusterModelRuntime")
    spec.note("runtime", "runtimes of KServe aren't read: vllm is taken; name another in spec.serving.runtimeRef")
    template = spec.child("template")
    containers = template.children("containers")
    main = next(
        (each for each in containers if each.value.get("name") == "main"), containers[0] if containers else None
    )
    if main is not None:
        main.take("name")
    artifact: Json = {
        "uri": uri,
        **artifacts.modelcar_path(model, "uri", uri),
        "format": artifacts.convert_format("huggingface", "", model, "uri"),
    }
    if account := template.text("serviceAccountName"):
        artifact["serviceAccountName"] = account
    scaling = spec.child("scaling")
    least, most = spec.number("replicas"), None
    if spec.value.get("scaling"):
        least, most = scaling.number("minReplicas"), scaling.number("maxReplicas")
        for key in scaling.member_names():
            if key not in ("minReplicas", "maxReplicas"):
                scaling.note(key, "pods are scaled by CPU: write metrics into spec.serving.autoscaling.metrics")
    others = tuple(each for each in containers if each is not main)
    metadata = {
        "labels": serving_pods.convert_labels(spec, "labels"),
        "annotations": _pod_annotations(document) | serving_pods.convert_labels(spec, "annotations"),
    }
    place = scaling if spec.value.get("scaling") else spec
    key = "minReplicas" if place is scaling else "replicas"
    serving: Json = {
        "runtimeRef": {"kind": "ClusterModelRuntime", "name": "vllm"},
        **serving_pods.convert_replicas(place, key, least, most),
    }
    serving |= serving_pods.build_serving(
        serving_pods.convert_resources(main) if main else {},
        serving_pods.convert_pod_template(template, main, others),
        metadata,
    )
    wanted: Json = {
        "version": {"name": f"{name}-1"},
        "serving": serving,
        "endpoint": _convert_gateways(document, context),
    }
    return [
        artifacts.build_version(document, f"{name}-1", name, artifact),
        artifacts.build_model(document, name, wanted, _model_labels(document)),
    ]


def _convert_gateways(document: ForeignObject, context: ImportContext) -> Json | None:
    """Build spec.endpoint from the command line, else from the service's Gateways."""
    asked = context.options.build_endpoint(document.name)
    gateway = document.spec.child("router").child("gateway")
    parents = [
        {key: ref.text(key) for key in ("name", "namespace", "sectionName") if key in ref}
        for ref in gateway.children("refs")
    ]
    if asked is not None:
        if parents:
            gateway.note("refs", "--gateway is taken instead")
        return asked
    if parents:
        return {"parentRefs": parents}
    document.note_object("no endpoint: callers reach the Service of the Model; name a Gateway with --gateway")
    return None


def _convert_trained_model(document: ForeignObject, context: ImportContext) -> Sequence[Json]:
    spec, name = document.spec, document.name
    model = spec.child("model")
    framework = model.text("framework")
    uri = artifacts.convert_address(model, "storageUri")
    artifact: Json = {
        "uri": uri,
        **artifacts.modelcar_path(model, "storageUri", uri),
        "format": artifacts.convert_format(framework, "", model, "framework"),
    }
    spec.note(
        "inferenceService",
        f"{spec.text('inferenceService')} serves several models in one server: here each Model has pods of its own",
    )
    memory = model.text("memory")
    wanted = {
        "version": {"name": f"{name}-1"},
        "serving": {"resources": {"requests": {"memory": memory}}} if memory else {},
        "endpoint": context.options.build_endpoint(name),
    }
    return [
        artifacts.build_version(document, f"{name}-1", name, artifact),
        artifacts.build_model(document, name, wanted),
    ]


PROVIDER = Provider(
    name="kserve",
    title="KServe",
    groups=("serving.kserve.io", "serving.kubeflow.org"),
    resources=(
        "inferenceservices.serving.kserve.io",
        "llminferenceservices.serving.kserve.io",
        "trainedmodels.serving.kserve.io",
        "inferencegraphs.serving.kserve.io",
    ),
    kinds={
        "InferenceService": _convert_service,
        "LLMInferenceService": _convert_llm,
        "TrainedModel": _convert_trained_model,
    },
    advice={
        "InferenceGraph": "graphs of models have no place here: a Splitter between versions of one model is a "
        "RolloutPolicy with weights, a Switch by header one with match; sequences and ensembles stay with KServe, or "
        "become a service of your own that asks the Models' Services",
        "ServingRuntime": "write a ModelRuntime of its container: see the how-to on runtimes",
        "ClusterServingRuntime": "write a ClusterModelRuntime of its container: see the how-to on runtimes",
        "LLMInferenceServiceConfig": "write a ClusterModelRuntime of its template: see the how-to on runtimes",
        "LocalModelCache": "artifacts are kept near pods by spec.serving.cache of a Model",
        "LocalModelNode": "artifacts are kept near pods by spec.serving.cache of a Model",
        "LocalModelNodeGroup": "artifacts are kept near pods by spec.serving.cache of a Model",
        "ClusterStorageContainer": "stores are those of the fetch image: put the artifact into one of them "
        "(how-to: artifacts)",
    },
    parts={},
    hints=_HINTS,
)
