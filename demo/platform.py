"""What stands below the story: images in the registry, Modelwright installed by Helm, a store and its Secret."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import yaml

from demo.console import DemoError
from demo.kubectl import Json, Kubectl
from devcluster import Cluster

ROOT = Path(__file__).parents[1]
SYSTEM = "modelwright-system"
BUCKET = "models"
SECRET = "model-store"


def images(
    cluster: Cluster, names: Iterable[str], told: Callable[[str, float | None], None] = lambda *_: None
) -> dict[str, str]:
    """Builds and pushes what changed; returns each image by digest. ``told`` gets the seconds, None when unchanged."""
    references = {}
    for name in names:
        begin = time.monotonic()
        built = cluster.image(name)
        told(name, time.monotonic() - begin if built.built else None)
        references[name] = built.reference
    return references


def install(
    cluster: Cluster, references: Mapping[str, str], values: Mapping[str, object] | None = None
) -> Iterable[str]:
    """Installs or upgrades both charts, yielding each command before it is run. Raises DemoError with Helm's words."""
    own = {
        "image": _by_digest(references["operator"]),
        "fetchImage": _by_digest(references["fetch"]),
        "runtimes": {"images": {"mlserver": references["mlserver"]} if "mlserver" in references else {}},
    }
    for chart, chart_values in (("modelwright-crds", {}), ("modelwright", own | dict(values or {}))):
        command = ["upgrade", "--install", chart, f"charts/{chart}", "--namespace", SYSTEM, "--create-namespace"]
        yield f"helm {' '.join(command)}"
        helm(cluster, *command, "--wait", "--timeout", "3m", "--values", "-", stdin=yaml.safe_dump(chart_values))


def helm(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    """Standard output of a helm command. Raises DemoError."""
    command = [str(cluster.helm), "--kubeconfig", str(cluster.kubeconfig), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig)
        hint = "\n".join(operator_log(kubectl).splitlines()[-15:])
        raise DemoError(f"helm {' '.join(arguments)}: {done.stderr.strip()}\nlast lines of the operator's log:\n{hint}")
    return done.stdout


def operator_log(kubectl: Kubectl, lines: int = 200) -> str:
    """The end of the operator's log; a sentence when there is none."""
    try:
        return kubectl.run("logs", "-n", SYSTEM, "deployment/modelwright", f"--tail={lines}")
    except DemoError as error:
        return f"(no log of the operator: {error})"


def store_secret(cluster: Cluster, namespace: str, name: str = SECRET) -> Json:
    """A Secret with the address and keys of the cluster's S3 store, as manifests/samples/credentials.yaml shows it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {
            "AWS_ENDPOINT_URL": cluster.s3.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": cluster.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": cluster.s3.secret_key,
        },
    }


def prepare(cluster: Cluster, kubectl: Kubectl, samples: Path, namespace: str) -> None:
    """The team's namespace, the bucket its models are in, and the Secret its pods read them with."""
    cluster.s3.make_bucket(BUCKET)
    kubectl.apply(samples / "namespace.yaml")
    kubectl.apply(store_secret(cluster, namespace))


def _by_digest(reference: str) -> dict[str, str]:
    repository, _, digest = reference.partition("@")
    if not digest:
        raise ValueError(f"{reference} has no digest")
    return {"repository": repository, "digest": digest}
