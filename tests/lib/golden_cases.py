"""Cases of the golden manifests: what is rendered for which objects."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelwright.api.v1alpha1.model import Endpoint, Monitoring, initial_replicas
from modelwright.api.v1alpha1.policy import EvaluationGate, InfraGate, ScanGate
from modelwright.api.v1alpha1.retraining import Work
from modelwright.api.v1alpha1.version import ModelVersion, ReferenceSample, Sample
from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import HeaderCondition, TrafficShare, TrafficSplit
from modelwright.core.runtime_choice import RuntimeChoice
from modelwright.render import drift_monitor_pod, fetch_container, routes, services, training_stages, workload
from modelwright.render import gate_jobs as gate_renderers
from modelwright.render.mirror_target import MirrorSettings
from modelwright.traffic.gateway_api import MARK_FEATURE, MIRROR_FEATURE, MIRROR_PERCENT_FEATURE, GatewayRouter
from modelwright.traffic.port import RoutingObjects, TrafficRouter
from modelwright.traffic.service import ServiceRouter
from modelwright.traffic.traefik import TraefikRouter
from tests.lib import objects
from tests.unit.render import test_training
from tests.unit.render.builders import DIGEST, IMAGES, choice, identify, parsed, raw_model, rollout, stored, version

Json = dict[str, Any]


SERVING, CANDIDATE = Revision("digits-v1", "aaaaaaaaaa"), Revision("digits-v2", "bbbbbbbbbb")


GATEWAY = GatewayRouter(None, frozenset({MARK_FEATURE, MIRROR_FEATURE, MIRROR_PERCENT_FEATURE}))


TRAEFIK = TraefikRouter(None, frozenset({MARK_FEATURE}))


SERVER = {
    "ports": {"http": 8080, "grpc": 9000, "metrics": 8082},
    "formats": [{"name": "plain", "env": [{"name": "IMPLEMENTATION", "value": "sklearn"}]}],
    "modelPath": "/mnt/models/$(MODEL_NAME)",
    "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}],
    "container": {
        "args": ["serve", "$(MODEL_DIR)"],
        "env": [{"name": "LOG_LEVEL", "value": "info"}],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    },
}


def manifests(raw: Json, chosen: RuntimeChoice, found: ModelVersion, features: bool) -> list[Json]:
    """Everything that a serving Model has, in the order of making."""
    model, revision = parsed(raw), identify(raw, chosen, found)
    kept = stored(raw, chosen, found)
    ports: Mapping[str, int] = kept["data"]["ports"]
    autoscaling, endpoint = model.spec.serving.autoscaling, model.spec.endpoint
    replicas = None if autoscaling else initial_replicas(model.spec.serving)
    written = kept | {"data": kept["data"] | {"template": "as in the Deployment"}}
    rendered = [workload.revision_deployment(raw, revision, kept["data"]["template"], replicas), written]
    if endpoint is not None:
        rendered.append(services.revision_service(raw, revision, ports))
    if (autoscaling.min_replicas if autoscaling else replicas or 0) > 1:
        rendered.append(workload.revision_disruption_budget(raw, revision))
    if autoscaling is not None:
        rendered.append(workload.revision_autoscaler(raw, revision, autoscaling))
    rendered.append(services.model_service(raw, TrafficSplit.all_to(revision), {revision.hash: ports}, None))
    if endpoint is not None:
        rendered.append(routes.render_route(raw, endpoint, TrafficSplit.all_to(revision), marked=features))
    return rendered


def plain() -> list[Json]:
    return manifests(raw_model(), choice(), version(), features=False)


def http_endpoint() -> list[Json]:
    endpoint = {
        "parentRefs": [{"name": "models", "namespace": "gateways", "sectionName": "http"}],
        "hostnames": ["models.example.com"],
        "pathPrefix": "/vision/digits",
    }
    raw = raw_model(serving={"replicas": 2}, endpoint=endpoint)
    return manifests(raw, choice(**SERVER), version(credentialsSecretRef={"name": "store"}), features=True)


def grpc_endpoint() -> list[Json]:
    raw = raw_model(endpoint={"parentRefs": [{"name": "models"}], "protocol": "GRPC"})
    return manifests(raw, choice(**SERVER), version(), features=True)


def autoscaled_with_cache_and_overrides() -> list[Json]:
    serving = {
        "autoscaling": {
            "minReplicas": 2,
            "maxReplicas": 5,
            "behavior": {
                "scaleDown": {
                    "stabilizationWindowSeconds": 1800,
                    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 600}],
                }
            },
        },
        "cache": {"persistentVolumeClaim": "models"},
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}},
        "drainSeconds": 0,
        "podTemplate": {
            "metadata": {"labels": {"team": "vision"}},
            "spec": {
                "topologySpreadConstraints": None,
                "containers": [{"name": "sidecar", "image": "example.com/s:1"}],
            },
        },
    }
    return manifests(raw_model(serving=serving), choice(**SERVER), version(uri="pvc://claim/digits"), features=False)


def resolve_pod() -> list[Json]:
    raw = objects.version("vision", "digits-v1")
    raw["metadata"]["uid"] = "version-uid"
    artifact = version(credentialsSecretRef={"name": "store"}, serviceAccountName="reader").spec.artifact
    keys = {"release": "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"}
    return [
        fetch_container.resolve_pod(raw, "digits", artifact, IMAGES),
        fetch_container.resolve_pod(raw, "digits", artifact, IMAGES, digest=DIGEST, keys=keys),
    ]


def serves_as_another_account() -> list[Json]:
    """The pods that serve, and the one that fills the cache which they mount."""
    serving = {"cache": {"persistentVolumeClaim": "models"}, "serviceAccountName": "digits-server"}
    wanted = version(uri="pvc://claim/digits", credentialsSecretRef={"name": "store"}, serviceAccountName="reader")
    raw = objects.version("vision", "digits-v1")
    raw["metadata"]["uid"] = "version-uid"
    kept = fetch_container.CachedContent("models", fetch_container.CacheProof())
    fill = fetch_container.fill_pod(raw, "digits", wanted.spec.artifact, IMAGES, DIGEST, kept)
    return [fill, *manifests(raw_model(serving=serving), choice(**SERVER), wanted, features=False)]


def routed(traffic: TrafficRouter, routing: TrafficSplit) -> list[Json]:
    """What moves the traffic of a Model with two revisions."""
    endpoint = Endpoint.model_validate(
        {
            "parentRefs": [{"name": "models", "namespace": "gateways"}],
            "hostnames": ["models.example.com"],
            "pathPrefix": "/d",
        }
    )
    ports = {revision.hash: {"http": 8080, "grpc": 9000} for revision in (SERVING, CANDIDATE)}
    scene = RoutingObjects(raw_model(endpoint=endpoint.wire()), endpoint, None, None, {})
    return traffic.render_manifests(scene, routing, ports)


def traffic_canary() -> list[Json]:
    return routed(
        GATEWAY, TrafficSplit((TrafficShare(SERVING, 90), TrafficShare(CANDIDATE, 10)), service_revision=SERVING)
    )


def traffic_match() -> list[Json]:
    headers = (HeaderCondition("X-Group", "beta"), HeaderCondition("X-Client", "^test-", regex=True))
    return routed(GATEWAY, replace(TrafficSplit.all_to(SERVING), match=headers, matched=CANDIDATE))


def traffic_mirror() -> list[Json]:
    return routed(GATEWAY, replace(TrafficSplit.all_to(SERVING), mirror_percent=50, copy_token="sesame"))


def traffic_traefik_mirror() -> list[Json]:
    return routed(TRAEFIK, replace(TrafficSplit.all_to(SERVING), mirror_percent=50, copy_token="sesame"))


def traffic_observe() -> list[Json]:
    return routed(GATEWAY, replace(TrafficSplit.all_to(SERVING), observe_percent=10, copy_token="sesame"))


def traffic_traefik_observe() -> list[Json]:
    return routed(TRAEFIK, replace(TrafficSplit.all_to(SERVING), observe_percent=10, copy_token="sesame"))


def observer_of_a_model() -> list[Json]:
    artifact = version(credentialsSecretRef={"name": "store"}).spec.artifact
    reference = ReferenceSample(uri="s3://models/digits/1/reference.json", digest=DIGEST)
    sample = drift_monitor_pod.reference_source(reference, artifact)
    made = drift_monitor_pod.monitor_deployment(
        raw_model(), SERVING, sample, Monitoring(), IMAGES, MirrorSettings("sesame", service_account="reader")
    )
    return [drift_monitor_pod.monitor_service(raw_model()), made]


def traffic_traefik_sticky() -> list[Json]:
    return routed(
        TRAEFIK,
        TrafficSplit((TrafficShare(SERVING, 90), TrafficShare(CANDIDATE, 10)), sticky=True, service_revision=SERVING),
    )


def traffic_by_replicas() -> list[Json]:
    return routed(ServiceRouter(), TrafficSplit((TrafficShare(SERVING, 75), TrafficShare(CANDIDATE, 25))))


def gate_jobs() -> list[Json]:
    runtime = choice(**SERVER)
    samples = ({"request": {"inputs": []}, "expect": {"outputs": []}},)
    infra_gate = {"repeats": 5, "latency": {"max": "250ms"}, "memory": "2Gi"}
    scorer = {"name": "score", "image": "example.com/score:1", "command": ["python", "/score.py"]}
    evaluation_gate = {"template": {"spec": {"containers": [scorer]}}, "metrics": [{"name": "accuracy", "min": "0.9"}]}
    candidate = version(uri="s3://models/digits/2", credentialsSecretRef={"name": "store"}).spec.artifact
    scan_gate = {"allow": {"globals": ["sklearn.*"], "files": ["README.md"]}}
    return [
        gate_renderers.scan_job(
            rollout(),
            ScanGate.model_validate(scan_gate),
            CANDIDATE,
            gate_renderers.EvaluatedContent("digits-v2", candidate, DIGEST),
            IMAGES,
        ),
        gate_renderers.evaluation_job(
            rollout(),
            EvaluationGate.model_validate(evaluation_gate),
            CANDIDATE,
            gate_renderers.EvaluatedContent("digits-v2", candidate, DIGEST),
            gate_renderers.EvaluatedContent("digits-v1", version().spec.artifact, DIGEST),
            IMAGES,
        ),
        gate_renderers.infra_job(
            rollout(),
            InfraGate.model_validate(infra_gate),
            gate_renderers.ProbedCandidate(
                CANDIDATE, stored(raw_model(), runtime), "V2", 30, service_account="models-reader", pods=["10.0.0.1"]
            ),
            tuple(map(Sample.model_validate, samples)),
            IMAGES,
        ),
    ]


def training_run() -> list[Json]:
    of = test_training.template(holdout={"uri": "pvc://data/holdout"})
    given = test_training.inputs(of)
    argo = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {"arguments": ["$(INPUTS)"]}}
    other = Work.model_validate({"resource": {"manifest": argo, "profile": "Workflow"}})
    run, policy = test_training.run(), test_training.policy()
    stages = [
        training_stages.stage_job(run, stage, test_training.work(stage, of), given) for stage in test_training.STAGES
    ]
    return [
        training_stages.dataset_resolve_pod(run, "dataset", of.dataset, "digits", IMAGES),
        *stages,
        training_stages.stage_resource(run, "train", other, given),
        training_stages.data_poll_cron_job(policy, test_training.trigger(), IMAGES),
    ]


TRAFFIC = (
    traffic_canary,
    traffic_match,
    traffic_mirror,
    traffic_traefik_mirror,
    traffic_observe,
    traffic_traefik_observe,
    traffic_traefik_sticky,
    traffic_by_replicas,
)


CASES = (
    *TRAFFIC,
    plain,
    http_endpoint,
    grpc_endpoint,
    autoscaled_with_cache_and_overrides,
    resolve_pod,
    serves_as_another_account,
    gate_jobs,
    observer_of_a_model,
    training_run,
)
