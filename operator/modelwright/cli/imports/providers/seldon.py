"""Seldon: converts SeldonDeployment of Core 1, Model and Experiment of Core 2; gives advice for other kinds."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.cli.imports import artifacts, rollout_policies, serving_pods
from modelwright.cli.imports.fields import Fields, Json
from modelwright.cli.imports.foreign_objects import ForeignObject, ImportContext, Provider

_SERVERS = {
    "SKLEARN_SERVER": "sklearn",
    "XGBOOST_SERVER": "xgboost",
    "TENSORFLOW_SERVER": "tensorflow",
    "MLFLOW_SERVER": "mlflow",
    "TRITON_SERVER": "triton",
    "HUGGINGFACE_SERVER": "huggingface",
}
_FORMATS = (
    "sklearn",
    "xgboost",
    "lightgbm",
    "tensorflow",
    "onnx",
    "pytorch",
    "huggingface",
    "mlflow",
    "tensorrt",
    "python",
    "alibi-detect",
    "alibi-explain",
)
_EVIDENCE_HINT = "asks for no evidence: add spec.analysis, so that errors take a version back by themselves"
_HINTS = {
    "spec.predictors.explainer": "explainers aren't served beside a model: run one as a Model or service of its own",
    "spec.predictors.graph.children": "graphs of models have no place here: keep this predictor with Seldon, or make a "
    "Model of each unit and a service of your own that asks them in turn",
    "spec.predictors.graph.logger": "requests are observed with spec.monitoring of the Model; they aren't sent "
    "elsewhere",
    "spec.predictors.graph.parameters": "parameters of a server are its runtime's: write a ModelRuntime with them",
    "spec.predictors.graph.endpoint": "ports and protocol are the runtime's",
    "spec.predictors.svcOrchSpec": "there is no orchestrator in the pods here",
    "spec.predictors.engineResources": "there is no orchestrator in the pods here",
    "spec.predictors.componentSpecs.hpaSpec": "write it into spec.serving.autoscaling of the Model as "
    "autoscaling/v2 has it",
    "spec.predictors.componentSpecs.kedaSpec": "write what it scales by into spec.serving.autoscaling of the Model",
    "spec.predictors.componentSpecs.pdbSpec": "the operator makes a PodDisruptionBudget automatically",
    "spec.name": "names are those of metadata",
    "spec.predictors.replicas": "a candidate is scaled to its share of the requests automatically",
    "spec.predictors.componentSpecs": "of a predictor beside the main one only the artifact is taken: how it is "
    "served is "
    "the Model's spec.serving",
    "spec.oauth_key": "callers are authenticated at the gateway",
    "spec.oauth_secret": "callers are authenticated at the gateway",
    "spec.transport": "for gRPC at the gateway set spec.endpoint.protocol: GRPC",
    "spec.predictors.ssl": "TLS ends at the gateway",
    "spec.annotations": "tell Seldon's orchestrator what to do, and there is none here",
    "spec.predictors.annotations": "tell Seldon's orchestrator what to do, and there is none here",
    "spec.server": "each Model has pods of its own: name a ClusterModelRuntime in spec.serving.runtimeRef where "
    "one is meant",
    "spec.logger": "requests are observed with spec.monitoring of the Model; they aren't sent elsewhere",
    "spec.explainer": "explainers aren't served beside a model: run one as a service of your own that asks the Model",
    "spec.llm": "is of Seldon's LLM module: serve the model itself, with the runtime vllm",
    "spec.parameters": "parameters of a server are its runtime's: write a ModelRuntime with them",
    "spec.dataflow": "there are no topics between models here",
    "spec.preloaded": "each pod fetches its artifact",
    "spec.dedicated": "each Model has pods of its own",
    "spec.schemaUri": "the schema of a model is its server's matter",
    "livenessProbe": "probes are the runtime's: write a ModelRuntime with others",
    "readinessProbe": "probes are the runtime's: write a ModelRuntime with others",
    "ports": "ports are the runtime's: write a ModelRuntime with others",
}


def _convert_deployment(document: ForeignObject, context: ImportContext) -> Sequence[Json]:
    spec, name = document.spec, document.name
    predictors = spec.children("predictors")
    readable = [each for each in predictors if _is_convertible(each)]
    protocol = spec.text("protocol", "seldon")
    if not readable:
        spec.note_all(
            "no predictor has a graph of one unit with a modelUri and a server that is known: nothing to import"
        )
        return ()
    if protocol == "seldon":
        document.note_object(
            f"callers use Seldon's own protocol (/api/v1.0/predictions): the runtime here speaks V2 "
            f"(/v2/models/{name}/infer)"
        )
    elif protocol not in ("v2", "kfserving"):
        spec.note("protocol", f"{protocol}: the runtime here speaks its own protocol, see its ClusterModelRuntime")
    main = max((each for each in readable if not each.value.get("shadow")), key=_traffic_share, default=readable[0])
    versions = [_build_version(document, each) for each in readable]
    policy = _build_policy(document, main, [each for each in readable if each is not main])
    container, template, others = _find_pod(main)
    count = main.number("replicas")
    spec_count = spec.number("replicas")
    place = main if count is not None else spec
    found = serving_pods.convert_replicas(place, "replicas", count if count is not None else spec_count, None)
    labels = {"labels": serving_pods.convert_labels(main, "labels")}
    resources = serving_pods.convert_resources(container) if container else {}
    pod = serving_pods.convert_pod_template(template, container, others) if template else {}
    wanted = {
        "version": {"name": f"{name}-{main.text('name', 'default')}"},
        "serving": found | serving_pods.build_serving(resources, pod, labels),
        "endpoint": _build_endpoint(document, context),
        "rolloutPolicyRef": {"name": name} if policy else None,
    }
    own = serving_pods.convert_labels(document.fields.child("metadata"), "labels")
    return [*versions, *policy, artifacts.build_model(document, name, wanted, own)]


def _build_endpoint(document: ForeignObject, context: ImportContext) -> Json | None:
    found = context.options.build_endpoint(document.name)
    if found is None:
        document.note_object("no endpoint: callers reach the Service of the Model; name a Gateway with --gateway")
    return found


def _is_convertible(predictor: Fields) -> bool:
    """Return whether a predictor is a single model; note why not."""
    graph = predictor.child("graph")
    if graph.value.get("children"):
        graph.note("children", _HINTS["spec.predictors.graph.children"])
        return False
    graph.take("children")
    if not graph.value.get("modelUri") or graph.text("implementation") not in _SERVERS:
        graph.note_all(
            "has no modelUri, or a server that isn't one of " + ", ".join(_SERVERS) + ": a container of your own is a "
            "ModelRuntime here, and what it loads a ModelVersion"
        )
        return False
    return True


def _traffic_share(predictor: Fields) -> int:
    return predictor.number("traffic") or 0


def _build_version(document: ForeignObject, predictor: Fields) -> Json:
    graph = predictor.child("graph")
    kind = graph.text("type", "MODEL")
    if kind != "MODEL":
        graph.note("type", f"{kind}: units other than models have no place here, and it is taken as a model")
    artifact: Json = {
        "uri": artifacts.convert_address(graph, "modelUri"),
        "format": artifacts.convert_format(_SERVERS[graph.text("implementation")], "", graph, "implementation"),
    }
    if account := graph.text("serviceAccountName"):
        artifact["serviceAccountName"] = account
    artifacts.convert_credentials(graph, "envSecretRefName", artifact)
    return artifacts.build_version(
        document, f"{document.name}-{predictor.text('name', 'default')}", document.name, artifact
    )


def _find_pod(predictor: Fields) -> tuple[Fields | None, Fields | None, tuple[Fields, ...]]:
    """Return the model's container of componentSpecs, its pod, and the other containers."""
    unit = predictor.child("graph").text("name")
    for component in predictor.children("componentSpecs"):
        pod = component.child("spec")
        containers = pod.children("containers")
        named = next((each for each in containers if each.value.get("name") == unit), None)
        if named is not None or len(predictor.children("componentSpecs")) == 1:
            if named is not None:
                named.take("name")
            return named, pod, tuple(each for each in containers if each is not named)
    return None, None, ()


def _build_policy(document: ForeignObject, main: Fields, others: Sequence[Fields]) -> list[Json]:
    """Build the policy of the other predictors: shadows become mirror steps, traffic shares weight steps."""
    name, steps = document.name, rollout_policies.StepsBuilder()
    main.child("graph").text("name")
    if others and "traffic" in main:
        main.note("traffic", "follows from the steps of the policy: what the others have not")
    for each in others:
        called = f"{name}-{each.text('name', 'default')}"
        start = f"it begins when spec.version.name of the Model is {called}"
        each.child("graph").text("name")
        if each.flag("shadow"):
            percent = _traffic_share(each) or 100
            steps.add_step({"mirror": {"percent": min(max(percent, 1), 100), "hold": "1h"}})
            each.note("shadow", f"becomes a mirror step of RolloutPolicy {name}, whose answers are compared: {start}")
    weighted = sorted((each for each in others if not each.value.get("shadow")), key=_traffic_share)
    for each in weighted:
        called = f"{name}-{each.text('name', 'default')}"
        steps.set_weight(_traffic_share(each))
        steps.add_approval()
        each.note(
            "traffic",
            f"{_traffic_share(each)} % is a step of RolloutPolicy {name}: it begins when spec.version.name "
            "of the Model is "
            f"{called}, and waits for an approval, which needs spec.author of the ModelVersion",
        )
    if not steps.steps:
        return []
    document.note_object(f"RolloutPolicy {name} {_EVIDENCE_HINT}")
    held = max(3600.0, 2 * steps.total_hold_seconds)
    strategy = {"steps": steps.limit_steps(document.fields)}
    return [
        rollout_policies.build_policy(
            document, name, {"strategy": strategy, "deadline": rollout_policies.format_duration(held)}
        )
    ]


def _convert_model(document: ForeignObject, context: ImportContext) -> Sequence[Json]:
    spec, name = document.spec, document.name
    if "storageUri" not in spec:
        spec.note_all("has no storageUri: nothing to import")
        return ()
    artifact = _read_artifact(spec)
    least, most = spec.number("minReplicas"), spec.number("maxReplicas")
    key = "minReplicas" if least is not None else "replicas"
    count = least if least is not None else spec.number("replicas")
    memory = spec.text("memory")
    resources = {"requests": {"memory": memory}} if memory else {}
    if least is not None and "replicas" in spec:
        spec.note("replicas", "is where scaling begins: here at minReplicas")
    experiments = [
        each
        for each in context.objects
        if each.kind == "Experiment" and each.namespace == document.namespace and _stable_name(each) == name
    ]
    policy = experiments[0].name if experiments and _other_candidates(experiments[0], context) else ""
    wanted = {
        "version": {"name": f"{name}-1"},
        "serving": serving_pods.convert_replicas(spec, key, count, most) | serving_pods.build_serving(resources, {}),
        "endpoint": _build_endpoint(document, context),
        "rolloutPolicyRef": {"name": policy} if policy else None,
    }
    labels = serving_pods.convert_labels(document.fields.child("metadata"), "labels")
    return [
        artifacts.build_version(document, f"{name}-1", name, artifact),
        artifacts.build_model(document, name, wanted, labels),
    ]


def _read_artifact(spec: Fields) -> Json:
    uri = artifacts.convert_address(spec, "storageUri")
    folder = spec.number("artifactVersion")
    uri = uri if folder is None else f"{uri.rstrip('/')}/{folder}"
    given = spec.take("requirements") or []
    asked = [str(each) for each in given] if isinstance(given, list) else []
    kind = spec.text("modelType")
    known = [each for each in [kind, *asked] if each in _FORMATS]
    rest = [each for each in asked if each not in known[:1]]
    if rest:
        spec.note(
            "requirements",
            f"{', '.join(rest)}: the format alone chooses a runtime; what else a server must have goes into a "
            "ModelRuntime",
        )
    named = known[0] if known else kind
    place = "requirements" if asked else "modelType" if kind else "storageUri"
    artifact: Json = {"uri": uri, "format": artifacts.convert_format(named, "", spec, place)}
    artifacts.convert_credentials(spec, "secretName", artifact)
    return artifact


def _stable_name(experiment: ForeignObject) -> str:
    """Return the name of the experiment's baseline model."""
    spec = experiment.spec
    candidates = spec.children("candidates")
    return str(spec.value.get("default") or (candidates[0].value.get("name") if candidates else ""))


def _other_candidates(experiment: ForeignObject, context: ImportContext) -> list[tuple[Fields, ForeignObject]]:
    """Return the other candidates and the mirror with their Models; those without an imported Model are left out."""
    spec = experiment.spec
    entries = [*spec.children("candidates"), *([spec.child("mirror")] if spec.value.get("mirror") else [])]
    found = []
    for entry in entries:
        if entry.value.get("name") == _stable_name(experiment):
            continue
        model = context.find_object("Model", str(entry.value.get("name")), experiment.namespace)
        if model is not None and "storageUri" in model.spec:
            found.append((entry, model))
    return found


def _convert_experiment(document: ForeignObject, context: ImportContext) -> Sequence[Json]:
    spec, stable = document.spec, _stable_name(document)
    if spec.value.get("resourceType", "model") != "model":
        spec.note_all("experiments of pipelines have no place here: it stays with Seldon")
        return ()
    spec.take("resourceType")
    others = _other_candidates(document, context)
    if not others or context.find_object("Model", stable, document.namespace) is None:
        spec.note_all(
            "its Models aren't among what is imported: give their files too, and they become versions of one "
            "Model with "
            "a RolloutPolicy"
        )
        return ()
    spec.note("default", f"{stable} is the Model that callers ask; the other candidates become versions of it")
    total = sum(each.number("weight") or 0 for each in spec.children("candidates")) or 1
    steps, versions = rollout_policies.StepsBuilder(), []
    mirror = spec.child("mirror")
    for entry, model in others:
        called = f"{stable}-{model.name}"
        begins = f"it begins when spec.version.name of Model {stable} is {called}"
        versions.append(artifacts.build_version(document, called, stable, _read_artifact(model.spec)))
        entry.text("name")
        if entry.path == mirror.path:
            percent = entry.number("percent") or 100
            steps.steps.insert(0, {"mirror": {"percent": min(percent, 100), "hold": "1h"}})
            entry.note("percent", f"becomes a mirror step, whose answers are compared: {begins}")
    for entry, model in sorted(others, key=lambda each: each[0].number("weight") or 0):
        if entry.path != mirror.path:
            share = round(100 * (entry.number("weight") or 0) / total)
            steps.set_weight(share)
            steps.add_approval()
            entry.note(
                "weight",
                f"{share} % is a step of RolloutPolicy {document.name}: it begins when spec.version.name of Model "
                f"{stable} is {stable}-{model.name}, and waits for an approval, which needs spec.author of the "
                "ModelVersion",
            )
    for entry in spec.children("candidates"):
        if entry.value.get("name") == stable:
            entry.text("name")
            entry.note("weight", "follows from the steps of the policy: what the others have not")
        elif all(entry.path != place.path for place, _ in others):
            entry.note_all("its Model isn't among what is imported: give its file too")
    document.note_object(f"RolloutPolicy {document.name} {_EVIDENCE_HINT}")
    document.note_object(f"callers asked for {document.name}.experiment: here they ask for the Model {stable}")
    strategy = {"steps": steps.limit_steps(document.fields)}
    deadline = rollout_policies.format_duration(max(3600.0, 2 * steps.total_hold_seconds))
    return [
        *versions,
        rollout_policies.build_policy(document, document.name, {"strategy": strategy, "deadline": deadline}),
    ]


PROVIDER = Provider(
    name="seldon",
    title="Seldon",
    groups=("machinelearning.seldon.io", "mlops.seldon.io"),
    resources=(
        "seldondeployments.machinelearning.seldon.io",
        "models.mlops.seldon.io",
        "experiments.mlops.seldon.io",
    ),
    kinds={"SeldonDeployment": _convert_deployment, "Model": _convert_model, "Experiment": _convert_experiment},
    advice={
        "Pipeline": "pipelines have no place here: it stays with Seldon, or becomes a service of your own that "
        "asks the "
        "Models' Services; of a drift detector in it, spec.monitoring of the Model takes the place",
        "Server": "each Model has pods of its own: spec.serving says how many and with what",
        "ServerConfig": "write a ClusterModelRuntime of its container: see the how-to on runtimes",
        "SeldonRuntime": "is Seldon's own installation: there is nothing like it here",
        "SeldonConfig": "is Seldon's own installation: there is nothing like it here",
    },
    parts={},
    hints=_HINTS,
)
