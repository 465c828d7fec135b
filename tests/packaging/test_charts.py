"""The charts: linted, rendered with several values, and refusing values that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.alias_generators import to_camel

from modelwright.api.v1alpha1.helper_pods import AdminHelperPlacement, HelperPods, HelperRoles
from modelwright.app.settings import Settings
from modelwright.measurement.connections import load_connections
from tests.packaging.render import CHART, CRDS_CHART, ROOT, Object, Refused, helm, objects, only, template

pytestmark = pytest.mark.chart

DIGEST = "sha256:" + "a" * 64
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "ClusterModelRuntime", "CustomResourceDefinition", "Namespace"}


def container(found: list[Object]) -> Object:
    (result,) = only(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    return result


def environment(found: list[Object]) -> dict[str, str | None]:
    return {e["name"]: e.get("value") for e in container(found)["env"]}


@pytest.mark.parametrize("chart", [CHART, CRDS_CHART], ids=lambda chart: chart.name)
def test_lint(chart: Any) -> None:
    helm("lint", "--strict", str(chart))


def test_versions_agree() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for chart in (CHART, CRDS_CHART):
        about = yaml.safe_load((chart / "Chart.yaml").read_text())
        assert f'version = "{about["appVersion"]}"' in project
        assert about["version"] == about["appVersion"]


def test_pod_meets_the_restricted_level() -> None:
    spec = only(template(), "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(template())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert [set(v) - {"name"} for v in spec["volumes"]] == [{"emptyDir"}, {"configMap"}]


def test_the_operator_accepts_its_environment() -> None:
    """Unknown or wrong settings end the operator at start, so what the chart sets must be what it reads."""
    for values in ({}, {"watchNamespaces": ["vision", "fraud"], "settings": {"logLevel": "DEBUG", "qps": 2.5}}):
        found = environment(template(**values))
        given = {name: value or "from-the-pod" for name, value in found.items() if name.startswith("MODELWRIGHT_")}
        settings = Settings.from_environment(given)
        assert settings.watch_namespaces == tuple(values.get("watchNamespaces", ()))
        assert settings.lease_name == "modelwright-operator"
        ports = {port["name"]: port["containerPort"] for port in container(template())["ports"]}
        assert ports == {"http": settings.http_port, "webhooks": settings.webhook_port}


def test_images_by_digest_and_by_tag() -> None:
    found = template(
        image={"repository": "r.example.com/operator", "digest": DIGEST}, fetchImage={"repository": "f", "tag": "1"}
    )
    assert container(found)["image"] == f"r.example.com/operator@{DIGEST}"
    assert environment(found)["MODELWRIGHT_FETCH_IMAGE"] == "f:1"
    assert environment(found)["MODELWRIGHT_OPERATOR_IMAGE"] == f"r.example.com/operator@{DIGEST}"


def test_connections_are_a_file_beside_their_mounted_secrets() -> None:
    connections = [
        {
            "name": "default",
            "type": "Prometheus",
            "url": "https://prometheus.example.com/team",
            "timeout": "5s",
            "headers": {"X-Scope-OrgID": "models"},
            "bearerTokenFile": "/etc/modelwright/credentials/prometheus/token",
            "caFile": "/etc/modelwright/credentials/prometheus/ca.crt",
            "enforcedLabel": "namespace",
        },
        {
            "name": "orders",
            "type": "HTTP",
            "url": "http://orders.example.com",
            "basicAuth": {"username": "u", "passwordFile": "/etc/modelwright/credentials/orders/password"},
            "headerFiles": {"X-Key": "/etc/modelwright/credentials/orders/key"},
            "queryParameters": {"namespace": "$(NAMESPACE)"},
        },
        {
            "name": "cloud",
            "type": "HTTP",
            "url": "https://metrics.example.com",
            "oauth2": {
                "tokenUrl": "https://login.example.com/token",
                "clientId": "modelwright",
                "clientSecretFile": "/etc/modelwright/credentials/orders/secret",
                "scopes": ["read"],
                "parameters": {"audience": "metrics"},
                "caFile": "/etc/modelwright/credentials/orders/ca.crt",
            },
        },
    ]
    found = template(connections=connections, connectionSecrets=["prometheus", "orders"])
    config = only(found, "ConfigMap")
    assert yaml.safe_load(config["data"]["connections.yaml"]) == {"connections": connections}
    mounts = {mount["mountPath"]: mount for mount in container(found)["volumeMounts"]}
    file = mounts[environment(found)["MODELWRIGHT_CONNECTIONS_FILE"] or ""]
    assert (file["subPath"], file["readOnly"]) == ("connections.yaml", True)
    volumes = {volume["name"]: volume for volume in only(found, "Deployment")["spec"]["template"]["spec"]["volumes"]}
    assert volumes[file["name"]]["configMap"]["name"] == config["metadata"]["name"]
    for name in ("prometheus", "orders"):
        mount = mounts[f"/etc/modelwright/credentials/{name}"]
        assert mount["readOnly"] is True
        assert volumes[mount["name"]]["secret"]["secretName"] == name


def test_without_the_enforced_label_namespaces_stay_separate(tmp_path: Path) -> None:
    base = {"name": "default", "type": "Prometheus", "url": "http://one:9090"}
    given = [
        base,
        base | {"name": "all", "enforcedLabel": ""},
        base | {"name": "team", "enforcedLabel": "team"},
        base | {"name": "orders", "type": "HTTP"},
    ]
    file = tmp_path / "connections.yaml"
    file.write_text(only(template(connections=given), "ConfigMap")["data"]["connections.yaml"])
    found = {name: entry.enforced_label for name, entry in load_connections(str(file)).items()}
    assert found == {"default": "namespace", "all": None, "team": "team", "orders": None}


def test_nobody_acts_as_the_node_unless_the_chart_is_told() -> None:
    name = "MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS"
    for values, expected in (
        ({}, {name: "false"}),
        ({"fetch": {"env": {"MODELWRIGHT_FETCH_MAX_BYTES": "7"}}}, {name: "false", "MODELWRIGHT_FETCH_MAX_BYTES": "7"}),
        ({"fetch": {"env": {name: "true", "NO_PROXY": 'a,"b"'}}}, {name: "true", "NO_PROXY": 'a,"b"'}),
    ):
        text = environment(template(**values))["MODELWRIGHT_FETCH_ENV"]
        assert Settings.from_environment({"MODELWRIGHT_FETCH_ENV": text or ""}).fetch_env == expected


def test_helper_pods_reach_the_operator_and_are_off_by_default() -> None:
    assert "MODELWRIGHT_HELPER_PODS" not in environment(template())
    given = {
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "imagePullSecrets": [{"name": "registry"}],
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
        "labels": {"sidecar.istio.io/inject": "false"},
        "env": {"HTTPS_PROXY": 'http://proxy:3128/?a="b"'},
        "roles": {"scan": {"priorityClassName": "low"}},
    }
    text = environment(template(helperPods=given))["MODELWRIGHT_HELPER_PODS"]
    found = Settings.from_environment({"MODELWRIGHT_HELPER_PODS": text or ""}).helper_pods
    assert found == HelperPods.model_validate(given)


def test_the_platform_may_assign_users_and_groups() -> None:
    found = template(podSecurity="Platform")
    given = environment(found)["MODELWRIGHT_POD_SECURITY"] or ""
    assert Settings.from_environment({"MODELWRIGHT_POD_SECURITY": given}).pod_security == "Platform"
    assert "MODELWRIGHT_POD_SECURITY" not in environment(template())
    specs = [only(found, "Deployment")["spec"]["template"]["spec"], only(found, "Pod")["spec"]]
    for spec in specs:
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    with pytest.raises(Refused):
        template(podSecurity="platform")


@pytest.mark.parametrize(
    "wrong",
    [
        {"toleration": []},
        {"roles": {"serving": {}}},
        {"imagePullSecrets": ["registry"]},
        {"labels": {"modelwright.dev/role": "serving"}},
        {"resources": {"limits": {"cpu": 0.5}}},
    ],
)
def test_the_chart_refuses_helper_pods_that_the_operator_refuses(wrong: Any) -> None:
    with pytest.raises(Refused):
        template(helperPods=wrong)


def test_the_chart_lists_what_the_operator_reads_of_helper_pods() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    top = schema["properties"]["helperPods"]["properties"]
    members = {to_camel(name) for name in AdminHelperPlacement.model_fields}
    assert set(top) == {*members, "roles"}
    assert set(schema["definitions"]["helperPod"]["properties"]) == members
    assert set(top["roles"]["properties"]) == set(HelperRoles.model_fields)


def test_a_change_of_connections_restarts_the_operator() -> None:
    one = {"name": "default", "type": "Prometheus", "url": "http://one:9090"}
    marks = [
        only(template(connections=given), "Deployment")["spec"]["template"]["metadata"]["annotations"]
        for given in ([], [one], [one], [one | {"url": "http://two:9090"}])
    ]
    assert marks[1] == marks[2]
    assert len({mark["modelwright.dev/connections"] for mark in marks}) == 3


def test_hostnames_by_namespace_are_off_by_default() -> None:
    assert "MODELWRIGHT_HOSTNAMES" not in environment(template())
    patterns = ["{namespace}.models.example.com", "*.{namespace}.example.com", "*"]
    given = environment(template(settings={"hostnames": patterns}))["MODELWRIGHT_HOSTNAMES"]
    assert list(Settings.from_environment({"MODELWRIGHT_HOSTNAMES": given or ""}).hostnames) == patterns
    assert Settings.from_environment({}).hostnames == ()


JOBSET = {"group": "jobset.x-k8s.io", "version": "v1alpha2", "kind": "JobSet", "plural": "jobsets"}


def test_training_kinds_reach_the_operator_with_their_rights() -> None:
    assert "MODELWRIGHT_TRAINING_KINDS" not in environment(template())
    given = environment(template(training={"kinds": [JOBSET]}))["MODELWRIGHT_TRAINING_KINDS"]
    settings = Settings.from_environment({"MODELWRIGHT_TRAINING_KINDS": given or ""})
    assert [(k.group, k.version, k.kind, k.plural) for k in settings.training_kinds] == [tuple(JOBSET.values())]


@pytest.mark.parametrize("rbac", [True, False])
@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("", "Secret"),
        ("", "Pod"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("modelwright.dev", "Approval"),
    ],
)
def test_kinds_that_no_training_has_made_are_refused(group: str, kind: str, rbac: bool) -> None:
    made = {"group": group, "version": "v1", "kind": kind, "plural": kind.lower() + "s"}
    for watched in ([], ["vision"]):
        with pytest.raises(Refused, match=f"training.kinds: {kind} of .* is never created"):
            template(training={"kinds": [JOBSET, made]}, watchNamespaces=watched, rbac={"create": rbac})


def test_webhooks_reach_the_operators_port() -> None:
    found = template()
    spec = only(found, "Service")["spec"]
    assert spec["selector"].items() <= only(found, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    (port,) = spec["ports"]
    assert {port["targetPort"]: 8090}.items() <= {
        one["name"]: one["containerPort"] for one in container(found)["ports"]
    }.items()


def test_namespaced_install_has_no_cluster_scoped_object() -> None:
    found = template(watchNamespaces=["vision", "fraud"])
    assert not {o["kind"] for o in found} & CLUSTER_SCOPED
    assert environment(found)["MODELWRIGHT_WATCH_NAMESPACES"] == "vision,fraud"


def test_two_releases_share_no_object_and_no_lease() -> None:
    first, second = (
        template(release=name, namespace="one", watchNamespaces=[name], runtimes={"enabled": False})
        for name in ("alpha", "beta")
    )
    keys = [
        {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in found} for found in (first, second)
    ]
    assert not keys[0] & keys[1]
    assert environment(first)["MODELWRIGHT_LEASE_NAME"] != environment(second)["MODELWRIGHT_LEASE_NAME"]


def test_releases_of_two_shards_share_no_object_and_no_lease() -> None:
    first, second = (
        template(release=f"modelwright-{name}", sharding={"shard": name}, training={"service": True})
        for name in ("default", "red")
    )
    keys = [
        {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in found} for found in (first, second)
    ]
    assert not keys[0] & keys[1]
    assert environment(first)["MODELWRIGHT_LEASE_NAME"] != environment(second)["MODELWRIGHT_LEASE_NAME"]
    assert [environment(found)["MODELWRIGHT_SHARD"] for found in (first, second)] == ["default", "red"]
    runtimes = [[o for o in found if o["kind"] == "ClusterModelRuntime"] for found in (first, second)]
    assert [bool(found) for found in runtimes] == [True, False]


def test_without_shards_nothing_of_them_is_rendered() -> None:
    assert template(sharding={"shard": ""}) == template()
    assert "MODELWRIGHT_SHARD" not in environment(template())


def test_optional_parts() -> None:
    found = template(
        metrics={
            "annotations": False,
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "tokenSecret": "scraper",
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        },
        extraEnv=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        labels={"team": "platform"},
        podLabels={"sidecar": "no"},
        imagePullSecrets=["pull"],
        priorityClassName="system-cluster-critical",
        nodeSelector={"kubernetes.io/os": "linux"},
        tolerations=[{"operator": "Exists"}],
        serviceAccount={"create": False, "name": "given"},
        rbac={"create": False},
        runtimes={"enabled": False},
        training={"service": False},
    )
    assert sorted(o["kind"] for o in found) == [
        "ConfigMap",
        "Deployment",
        "Pod",
        "PodDisruptionBudget",
        "PodMonitor",
        "PrometheusRule",
    ]
    assert only(found, "PodMonitor")["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = only(found, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True, "the label namespace is a Model's"
    rules = only(found, "PrometheusRule")
    assert rules["metadata"]["labels"]["release"] == "prometheus"
    assert rules["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    deployment = only(found, "Deployment")
    pod = deployment["spec"]["template"]
    assert deployment["metadata"]["labels"]["team"] == "platform"
    assert pod["metadata"]["labels"]["sidecar"] == "no"
    assert set(pod["metadata"]["annotations"]) == {"modelwright.dev/connections"}
    assert pod["spec"]["serviceAccountName"] == "given"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert environment(found)["HTTPS_PROXY"] == "http://proxy:3128"


def test_two_replicas_are_on_two_nodes_and_drain_one_at_a_time() -> None:
    found = template()
    deployment, budget = only(found, "Deployment"), only(found, "PodDisruptionBudget")
    assert deployment["spec"]["replicas"] == 2
    assert (budget["spec"]["maxUnavailable"], budget["spec"]["selector"]) == (1, deployment["spec"]["selector"])
    preferred = deployment["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    ((term,),) = ([p["podAffinityTerm"] for p in rules] for rules in preferred.values())
    assert (term["topologyKey"], term["labelSelector"]) == ("kubernetes.io/hostname", deployment["spec"]["selector"])
    given = {"nodeAffinity": {}}
    assert only(template(affinity=given), "Deployment")["spec"]["template"]["spec"]["affinity"] == given


@pytest.mark.parametrize("values", [{"replicas": 1}, {"podDisruptionBudget": {"enabled": False}}], ids=str)
def test_a_single_replica_does_not_block_a_drain(values: Object) -> None:
    assert not [o for o in template(**values) if o["kind"] == "PodDisruptionBudget"]


def test_the_network_policy_admits_given_peers_and_the_release() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    rule = {"to": [], "ports": [{"port": 6443}]}
    spec = only(template(networkPolicy={"enabled": True, "from": [peer], "egress": [rule]}), "NetworkPolicy")["spec"]
    (own, *given), (_, *senders) = [ingress["from"] for ingress in spec["ingress"]]
    assert [ingress["ports"][0]["port"] for ingress in spec["ingress"]] == ["http", "webhooks"]
    assert given == senders == [peer]
    other = {"podSelector": {}}
    apart = only(template(networkPolicy={"enabled": True, "from": [peer], "webhooksFrom": [other]}), "NetworkPolicy")
    assert [ingress["from"][1:] for ingress in apart["spec"]["ingress"]] == [[peer], [other]]
    for name in ("Deployment", "Pod"):
        obj = only(template(), name)
        labels = (obj["spec"]["template"] if name == "Deployment" else obj)["metadata"]["labels"]
        assert own["podSelector"]["matchLabels"].items() <= labels.items()
    assert (spec["policyTypes"], spec["egress"]) == (["Ingress", "Egress"], [rule])
    open_to_all = only(template(networkPolicy={"enabled": True}), "NetworkPolicy")["spec"]
    assert open_to_all["policyTypes"] == ["Ingress"]
    assert not any("from" in ingress for ingress in open_to_all["ingress"])


def test_a_service_monitor_finds_the_service_made_for_it() -> None:
    found = template(metrics={"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}})
    monitor, service = only(found, "ServiceMonitor"), only(found, "Service", "modelwright-metrics")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert [o for o in found if o["kind"] == "Service" and wanted.items() <= o["metadata"]["labels"].items()] == [
        service
    ]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert [e["honorLabels"] for e in monitor["spec"]["endpoints"]] == [True], "the label namespace is a Model's"
    assert service["spec"]["selector"] == only(found, "Deployment")["spec"]["selector"]["matchLabels"]


def test_the_pod_of_helm_test_is_restricted_and_no_replica() -> None:
    found = template(training={"kinds": [JOBSET]}, watchNamespaces=["vision"])
    pod, deployment = only(found, "Pod"), only(found, "Deployment")
    assert not deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["automountServiceAccountToken"] is True, "the ServiceAccount gives none by itself"
    assert pod["spec"]["securityContext"] == deployment["spec"]["template"]["spec"]["securityContext"]
    (selfcheck,) = pod["spec"]["containers"]
    assert selfcheck["securityContext"] == container(found)["securityContext"]
    given = {e["name"]: e.get("value") for e in selfcheck["env"]}
    assert given.items() <= (environment(found) | {"MODELWRIGHT_NAMESPACE": None}).items()
    Settings.from_environment({name: value or "from-the-pod" for name, value in given.items()})


def test_dashboards_are_config_maps_that_grafana_finds() -> None:
    assert not [o for o in template() if "dashboard" in o["metadata"]["name"]]
    folder = {"grafana_folder": "Modelwright"}
    boards: dict[str, str] = {}
    for labels in ({}, {"grafana_dashboard": "yes", "team": "ml"}):
        found = template(metrics={"dashboards": {"enabled": True, "labels": labels, "annotations": folder}})
        maps = [o for o in found if "dashboard" in o["metadata"]["name"]]
        for o in maps:
            assert o["metadata"]["labels"].items() >= ({"grafana_dashboard": "1"} | labels).items()
            assert o["metadata"]["annotations"] == folder
            boards |= o["data"]
    shipped = {path.name: path.read_text() for path in (CHART / "files" / "dashboards").glob("*.json")}
    assert {name.removeprefix("modelwright-"): json.loads(text) for name, text in boards.items()} == {
        name: json.loads(text) for name, text in shipped.items()
    }
    assert shipped


BAD_VALUES = [
    ({"replica": 2}, "replica"),
    ({"replicas": "two"}, "replicas"),
    ({"image": {"repository": "x", "digest": "sha256:short"}}, "digest"),
    ({"image": {"repository": "x@sha256:abc"}}, "repository"),
    ({"watchNamespaces": "vision"}, "watchNamespaces"),
    ({"watchNamespaces": ["Not A Name"]}, "watchNamespaces"),
    ({"sharding": {"shard": "Red_1"}}, "shard"),
    ({"settings": {"hostnames": ["https://x.example.com"]}}, "hostnames"),
    ({"sharding": {"shard": "red"}, "watchNamespaces": ["vision"]}, "sharding.shard and watchNamespaces"),
    ({"settings": {"logLevel": "LOUD"}}, "logLevel"),
    ({"settings": {"workers": 0}}, "workers"),
    ({"networkPolicy": {"ingress": []}}, "ingress"),
    ({"podDisruptionBudget": {"minAvailable": 2}}, "minAvailable"),
    ({"settings": {"gatewayProbe": "Sometimes"}}, "gatewayProbe"),
    ({"extraEnv": [{"value": "nameless"}]}, "name"),
    ({"connections": [{"name": "default", "type": "Prometheus"}]}, "url"),
    ({"connections": [{"name": "default", "type": "Prometheus", "url": "prometheus:9090"}]}, "url"),
    ({"connections": [{"name": "default", "type": "Prometheus", "url": "http://me:secret@p:9090"}]}, "url"),
    ({"connections": [{"name": "default", "type": "Graphite", "url": "http://g"}]}, "type"),
    ({"connections": [{"name": "default", "type": "HTTP", "url": "http://g", "token": "secret"}]}, "token"),
    ({"connectionSecrets": [""]}, "connectionSecrets"),
    ({"runtimes": {"images": {"mlserver": ""}}}, "mlserver"),
    ({"resources": {"request": {"cpu": 1}}}, "request"),
    ({"metrics": {"dashboards": {"labels": {"grafana_dashboard": 1}}}}, "grafana_dashboard"),
    ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
    ({"training": {"kinds": [{"group": "jobset.x-k8s.io", "kind": "JobSet"}]}}, "version"),
    ({"training": {"kinds": [JOBSET | {"group": "*"}]}}, "group"),
    ({"training": {"kinds": [JOBSET | {"plural": "*"}]}}, "plural"),
    ({"training": {"kinds": [JOBSET | {"plural": "jobsets/status"}]}}, "plural"),
    ({"training": {"kinds": [JOBSET | {"verbs": ["*"]}]}}, "verbs"),
    ({"training": {"kinds": ["jobsets"]}}, "kinds"),
]


@pytest.mark.parametrize(("values", "named"), BAD_VALUES, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_values_are_refused_by_name(values: Object, named: str) -> None:
    with pytest.raises(Refused, match=named):
        template(**values)


def sources(folder: str) -> list[Object]:
    files = sorted(path for path in (ROOT / folder).glob("*.yaml") if path.name != "kustomization.yaml")
    return [o for path in files for o in objects(path.read_text())]


@pytest.mark.parametrize("keep", [True, False])
def test_crds_are_the_generated_ones(keep: bool) -> None:
    rendered = {
        o["metadata"]["name"]: o for o in template(CRDS_CHART, keep=keep) if o["kind"] == "CustomResourceDefinition"
    }
    expected = {o["metadata"]["name"]: o for o in sources("crds")}
    assert set(rendered) == set(expected)
    assert expected
    for name, crd in expected.items():
        annotations = rendered[name]["metadata"].setdefault("annotations", {})
        assert (annotations.pop("helm.sh/resource-policy", None) == "keep") is keep
        crd["metadata"].setdefault("annotations", {})
        assert rendered[name] == crd


@pytest.mark.parametrize("keep", [True, False])
def test_crds_and_policies_stay_together(keep: bool) -> None:
    for obj in template(CRDS_CHART, keep=keep):
        policy = obj["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
        assert policy == ("keep" if keep and obj["kind"] != "ClusterRole" else None), obj["metadata"]["name"]


def test_user_roles_can_be_left_out() -> None:
    names = {o["metadata"]["name"] for o in template(CRDS_CHART) if o["kind"] == "ClusterRole"}
    assert names == {f"modelwright-{name}" for name in ("view", "edit", "command", "approve", "admin")}
    assert not [o for o in template(CRDS_CHART, userRoles=False) if o["kind"] == "ClusterRole"]


def test_runtimes_are_the_shipped_ones() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    expected = {o["metadata"]["name"]: o for o in sources("manifests/runtimes") if o["kind"] == "ClusterModelRuntime"}
    rendered = {o["metadata"]["name"]: o for o in template() if o["kind"] == "ClusterModelRuntime"}
    assert expected
    expected["mlserver"]["spec"]["container"]["image"] += ":" + version
    assert {n: o["spec"] for n, o in rendered.items()} == {n: o["spec"] for n, o in expected.items()}


def test_runtimes_image_exclusion_and_scope() -> None:
    found = template(runtimes={"images": {"mlserver": f"r/mlserver@{DIGEST}"}, "exclude": ["triton"]})
    runtimes = {o["metadata"]["name"]: o for o in found if o["kind"] == "ClusterModelRuntime"}
    assert runtimes["mlserver"]["spec"]["container"]["image"] == f"r/mlserver@{DIGEST}"
    assert "triton" not in runtimes
    scoped = [o for o in template(watchNamespaces=["a", "b"]) if o["kind"] == "ModelRuntime"]
    assert {o["metadata"]["namespace"] for o in scoped if o["metadata"]["name"] == "mlserver"} == {"a", "b"}


def test_the_values_in_the_documentation_are_right() -> None:
    text = (ROOT / "docs" / "how-to" / "install.md").read_text()
    blocks = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    values = [block for block in map(yaml.safe_load, blocks) if "apiVersion" not in block]
    assert len(values) >= 3
    for block in values:
        assert template(**block)


def test_webhooks_have_a_port_of_their_own() -> None:
    """A flood of them must not keep the kubelet and Prometheus out."""
    (port,) = only(template(), "Service")["spec"]["ports"]
    assert port["targetPort"] == "webhooks"
    assert {container(template())[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} == {
        "http"
    }
    monitored = template(metrics={"serviceMonitor": {"enabled": True}})
    assert [end["port"] for end in only(monitored, "ServiceMonitor")["spec"]["endpoints"]] == ["http"]


def test_a_certificate_is_mounted_and_everybody_speaks_tls() -> None:
    found = template(
        tls={"secretName": "operator-tls"},
        metrics={"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}, "tokenSecret": "scraper"},
    )
    settings = Settings.from_environment(
        {name: value or "pod" for name, value in environment(found).items() if name.startswith("MODELWRIGHT_")}
    )
    mount = next(mount for mount in container(found)["volumeMounts"] if mount["name"] == "tls")
    assert (settings.tls_folder, mount["readOnly"]) == (mount["mountPath"], True)
    spec = only(found, "Deployment")["spec"]["template"]
    assert {"name": "tls", "secret": {"secretName": "operator-tls"}} in spec["spec"]["volumes"]
    assert spec["metadata"]["annotations"]["prometheus.io/scheme"] == "https"
    for probe in ("livenessProbe", "readinessProbe"):
        assert container(found)[probe]["httpGet"]["scheme"] == "HTTPS"
    services = [one for one in found if one["kind"] == "Service" and "-metrics" not in one["metadata"]["name"]]
    assert [(port["name"], port["port"]) for port in services[0]["spec"]["ports"]] == [("https", 443)]
    for kind, field in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
        (end,) = only(found, kind)["spec"][field]
        assert end["scheme"] == "https"
        assert end["tlsConfig"]["serverName"] == settings.server_name == "modelwright.modelwright-system.svc"
        assert end["authorization"] == {"credentials": {"name": "scraper", "key": "token"}}


def test_who_reads_metrics_is_asked_for_a_token() -> None:
    found = template(metrics={"serviceMonitor": {"enabled": True}, "readers": [{"namespace": "m", "name": "p"}]})
    assert environment(found)["MODELWRIGHT_METRICS_AUTHENTICATION"] == "Required"
    (end,) = only(found, "ServiceMonitor")["spec"]["endpoints"]
    assert end["bearerTokenFile"] == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    name = "modelwright-metrics-reader"
    roles = {one["metadata"]["name"]: one for one in found if one["kind"] == "ClusterRole"}
    assert roles[name]["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    bindings = {one["metadata"]["name"]: one for one in found if one["kind"] == "ClusterRoleBinding"}
    assert bindings[name]["subjects"] == [{"kind": "ServiceAccount", "namespace": "m", "name": "p"}]
    assert name not in {one["metadata"]["name"] for one in template() if one["kind"] == "ClusterRoleBinding"}
    plain = template(metrics={"authentication": "Off", "serviceMonitor": {"enabled": True}})
    (end,) = only(plain, "ServiceMonitor")["spec"]["endpoints"]
    assert not {"bearerTokenFile", "authorization"} & set(end)
    with pytest.raises(Exception, match="tokenSecret"):
        template(metrics={"podMonitor": {"enabled": True}})
