"""JobSet and Kueue beside a control plane: which of their webhooks are called, where, and for whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from devcluster import engines, parts
from devcluster.network import Network
from devcluster.pki import Authority

NETWORK = Network(0)


def hook(name: str, resource: str) -> dict[str, object]:
    service = {"name": "webhook-service", "namespace": "system", "path": f"/{name}"}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}
    return {"name": name, "clientConfig": {"service": service}, "rules": [rule], "failurePolicy": "Fail"}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with webhooks for more than we run it for."""
    hooks = [hook(f"m{r}", r) for r in ("pods", "jobs", "jobsets", "deployments", "clusterqueues", "rayjobs")]
    metadata = {"name": "mutating-webhook-configuration"}
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "manifests.yaml").write_text(
        "---\n" + yaml.safe_dump({"kind": "MutatingWebhookConfiguration", "metadata": metadata, "webhooks": hooks})
    )
    monkeypatch.setattr(parts, "module_files", lambda *_: folder)
    return folder


@pytest.mark.parametrize(
    ("name", "called"),
    [("jobset", {"mpods", "mjobsets"}), ("kueue", {"mjobs", "mjobsets", "mclusterqueues"})],
)
def test_webhooks_are_called_by_url_and_only_for_what_is_run(
    module: Path, tmp_path: Path, name: str, called: set[str]
) -> None:
    engine = next(each for each in engines.ENGINES if each.name == name)
    (found,) = engine.webhooks(NETWORK, Authority.create(tmp_path / "pki"))
    by_name = {each["name"]: each for each in found["webhooks"]}
    assert set(by_name) == called
    for each in by_name.values():
        assert each["clientConfig"]["url"] == f"https://{NETWORK.address}:{engine.webhook_port}/{each['name']}"
        assert "service" not in each["clientConfig"]
    if name == "kueue":
        assert by_name["mjobs"]["namespaceSelector"] == {"matchLabels": engines.MANAGED}, "else it stops every Job"
    else:
        assert by_name["mpods"]["objectSelector"], "else no pod starts without it"


def test_the_configuration_has_a_certificate_and_unique_ports(tmp_path: Path) -> None:
    identity = Authority.create(tmp_path / "pki").sign("engine", "engine", addresses=[NETWORK.address])
    ports = set()
    for engine in engines.ENGINES:
        command = engine.command(tmp_path / engine.name, NETWORK, identity)
        config = json.loads(Path(command[1].removeprefix("--config=")).read_text())
        certificates = Path(config["webhook"]["certDir"])
        assert (certificates / "tls.key").read_bytes() == identity.key.read_bytes()
        ports |= {config["webhook"]["port"], config["health"]["healthProbeBindAddress"].rpartition(":")[2]}
    assert len(ports) == 2 * len(engines.ENGINES)
