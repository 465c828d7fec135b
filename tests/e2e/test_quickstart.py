"""A new user's hour: the commands of docs/quickstart.md, as they stand there, on a cluster without Modelwright."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo.kubectl import Kubectl
from devcluster import ports
from devcluster.cluster import Cluster
from tests.e2e.lib.shell import environment

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ARTIFACT = re.compile(r"oci://registry\.example\.com/modelwright(/iris:\d), format: {name: sklearn}")
CREDENTIALS = "credentialsSecretRef: {name: registry}"
SECRET = "kubectl create secret generic registry -n flowers --from-literal=REGISTRY_INSECURE=true"


@dataclass(frozen=True)
class Person:
    """Somebody with the page before them: a shell in a folder of their own, and their own registry."""

    cluster: Cluster
    folder: Path

    def does(self, section: str) -> str:
        """Everything of one section of the page; what the shell said."""
        *_, page = (ROOT / "docs/quickstart.md").read_text().partition(f"\n## {section}. ")
        text = page.partition("\n## ")[0]
        said = ""
        for language, block in BLOCK.findall(text):
            if language == "yaml":
                name = re.search(r"name: ([\w-]+), namespace", block)
                assert name is not None
                file = "iris.yaml" if "kind: Model\n" in block else f"{name[1]}.yaml"
                # The cluster's own registry has no TLS, which the page says how to write.
                own = rf"oci://{self.cluster.registry}/quickstart\1, format: {{name: sklearn}}, {CREDENTIALS}"
                (self.folder / file).write_text(ARTIFACT.sub(own, block))
            else:
                said += self.types(block)
        return said

    def types(self, commands: str) -> str:
        """What these commands say; those that they leave running are ended."""
        for placeholder, own in (
            ("registry.example.com/modelwright", f"{self.cluster.push_registry}/quickstart PLAIN_HTTP=1"),
            ("charts/", f"{ROOT}/charts/"),
            ("build/images.yaml", f"{ROOT}/build/images.yaml"),
            ("make push", f"make -s -C {ROOT} push"),
            ("pipx install", "true"),
            ("create namespace flowers\n", f"create namespace flowers\n{SECRET}\n"),
            ("8080", str(ports.free_ports(1)[0])),
            ("curl -s", "curl -s --retry 30 --retry-connrefused --retry-delay 1"),
        ):
            commands = commands.replace(placeholder, own)
        script = f"set -x\n{commands}\nset +x; kill $(jobs -p) 2> /dev/null\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=environment(self.cluster, self.folder / "bin"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        print(done.stdout)
        return done.stdout


@pytest.fixture
def person(cluster: Cluster, tmp_path: Path) -> Person:
    kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig)
    if kubectl.run("get", "crd", "-o", "name", "-l", "app.kubernetes.io/name=modelwright"):
        pytest.skip("it ends by removing Modelwright with every Model, so it wants a cluster without it")
    # Built here, since that may take longer than a person would wait for `make push`.
    subprocess.run(["make", "-s", "-C", str(ROOT), "images"], stdin=subprocess.DEVNULL, check=True)
    return Person(cluster, tmp_path)


def seconds_since_install(person: Person) -> float:
    kubectl = Kubectl(person.cluster.kubectl, person.cluster.kubeconfig)
    created = "jsonpath={.metadata.creationTimestamp}"
    begin = kubectl.run("get", "deployment", "modelwright", "-n", "modelwright-system", "-o", created)
    return (datetime.now(UTC) - datetime.fromisoformat(begin)).total_seconds()


@pytest.mark.timeout(2400)
def test_a_new_users_hour(person: Person) -> None:
    installed = person.does("2")
    assert "leads and is ready" in installed
    served = person.does("3")
    print(f"from helm install to the first answer: {seconds_since_install(person):.0f} s")
    assert "no findings" in served
    assert '"model_version":"iris-v1"' in served
    refused = person.does("4")
    assert "+ echo 1\n1\n" in refused
    assert "was rolled back" in refused
    assert "samples[0]: outputs[0].data[0] is 1, not 0" in refused
    promoted = person.does("5")
    assert "100 % of the requests: version iris-v3" in promoted
    assert re.search(r"^iris-3 +iris-v1 +iris-v3 +Succeeded +Promoted ", promoted, re.MULTILINE)
    assert re.search(r"^iris-back-\w+ +iris-v3 +iris-v1 +Succeeded +RolledBackByHand ", promoted, re.MULTILINE)
    removed = person.does("6")
    assert 'namespace "modelwright-system" deleted' in removed
    kubectl = Kubectl(person.cluster.kubectl, person.cluster.kubeconfig)
    kinds = kubectl.run("api-resources", "--verbs=list", "-o", "name").split()
    left = [
        f"{kind}: {name}"
        for kind in kinds
        for name in kubectl.run("get", kind, "-A", "-o", "name").split()
        if "modelwright" in name or "iris" in name
    ]
    # Events go by themselves.
    assert [each for each in left if not each.startswith("events")] == []
