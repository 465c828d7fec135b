"""The platform of the demo: images in the registry, Modelwright installed by Helm, a store and its Secret."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import yaml
from obstore.store import S3Store

from demo.console import DemoError
from demo.kubectl import Json, Kubectl
from devcluster import parts
from devcluster.cluster import Cluster
from devcluster.images import build_image
from devcluster.progress import NoProgress, Progress

ROOT = Path(__file__).parents[1]
CONTAINERFILES = {"v2-test": ROOT / "tests" / "servers" / "v2" / "Containerfile"}
SYSTEM = "modelwright-system"
BUCKET = "models"
SECRET = "model-store"
GATEWAY = "models"
"""The Gateway in namespace gateways that every cluster has."""


def bring_up(progress: Progress | None = None, images: Iterable[str] = ()) -> Cluster:
    """Bring the cluster up unless it is running, with helm to install charts.

    Builds the named images meanwhile: they mostly wait for downloads, while the cluster's programs are compiled.
    CLUSTER selects the backend (see devcluster), MODELWRIGHT_CLUSTER the name (default ``dev``).
    """
    with ThreadPoolExecutor(1) as pool:
        built = [pool.submit(build, name, progress) for name in images]
        cluster = Cluster.up(name=os.environ.get("MODELWRIGHT_CLUSTER", "dev"), progress=progress)
        parts.build(["helm"], progress or NoProgress())
        for each in built:
            each.result()
    return cluster


def build(name: str, progress: Progress | None = None, *, root: Path = ROOT, tag: str = "dev") -> str:
    """Build an image from the checkout at `root`, unless it is unchanged; return its tag."""
    image = f"localhost/modelwright/{name}:{tag}"
    containerfile = CONTAINERFILES.get(name, root / "images" / name / "Containerfile")
    build_image(containerfile, image, context=root, progress=progress)
    return image


def images(
    cluster: Cluster, names: Iterable[str], progress: Progress | None = None, *, root: Path = ROOT, tag: str = "dev"
) -> dict[str, str]:
    """Build (from the checkout at `root`) and push the changed images; return each image by digest."""
    references = {}
    for name in names:
        references[name] = cluster.push_image(build(name, progress, root=root, tag=tag), progress)
    return references


def install(
    cluster: Cluster,
    references: Mapping[str, str],
    values: Mapping[str, object] | None = None,
    *,
    root: Path = ROOT,
) -> Iterable[str]:
    """Install or upgrade both charts of the checkout at `root`, yielding each command before it runs. Raises
    DemoError with Helm's message."""
    own = image_values(references) | {"connections": connections(cluster)}
    for chart, chart_values in (("modelwright-crds", {}), ("modelwright", own | dict(values or {}))):
        command = ["upgrade", "--install", chart, f"charts/{chart}", "--namespace", SYSTEM, "--create-namespace"]
        yield f"helm {' '.join(command)}"
        more = ("--wait", "--timeout", "3m", "--values", "-")
        helm(cluster, *command, *more, stdin=yaml.safe_dump(chart_values), root=root)


def image_values(references: Mapping[str, str]) -> dict[str, object]:
    """Build the chart's values for images by digest: `operator` and `fetch`, and `mlserver` if included."""
    return {
        "image": _by_digest(references["operator"]),
        "fetchImage": _by_digest(references["fetch"]),
        "runtimes": {"images": {"mlserver": references["mlserver"]} if "mlserver" in references else {}},
    }


def connections(cluster: Cluster) -> list[dict[str, str]]:
    """Build the connection to the cluster's Prometheus, if it has one."""
    if not cluster.prometheus_url:
        return []
    # A single team uses the cluster, and its queries select series without a namespace.
    return [{"name": "default", "type": "Prometheus", "url": cluster.prometheus_url, "enforcedLabel": ""}]


def helm(cluster: Cluster, *arguments: str, stdin: str | None = None, root: Path = ROOT) -> str:
    """Return the standard output of a helm command, run at `root`. Raises DemoError."""
    command = [str(cluster.helm), "--kubeconfig", str(cluster.kubeconfig), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=root, check=False)
    if done.returncode:
        kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig)
        hint = "\n".join(operator_log(kubectl).splitlines()[-15:])
        raise DemoError(f"helm {' '.join(arguments)}: {done.stderr.strip()}\nlast lines of the operator's log:\n{hint}")
    return done.stdout


def operator_log(kubectl: Kubectl, lines: int = 200) -> str:
    """Return the end of the operator's log, or a sentence when there is none."""
    try:
        which = "app.kubernetes.io/component=operator"
        return kubectl.run("logs", "-n", SYSTEM, "--selector", which, "--prefix", f"--tail={lines}")
    except DemoError as error:
        return f"(no log of the operator: {error})"


def store_secret(cluster: Cluster, namespace: str, name: str = SECRET) -> Json:
    """Build a Secret with the address and keys of the cluster's S3 store, like manifests/samples/credentials.yaml."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {
            "AWS_ENDPOINT_URL": cluster.s3.endpoint,
            "AWS_REGION": cluster.s3.region,
            "AWS_ACCESS_KEY_ID": cluster.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": cluster.s3.secret_key,
        },
    }


def prepare(cluster: Cluster, kubectl: Kubectl, samples: Path, namespace: str) -> None:
    """Create the team's namespace, the bucket of its models, and the Secret that its pods read them with."""
    make_bucket(cluster, BUCKET)
    kubectl.apply(samples / "namespace.yaml")
    kubectl.apply(store_secret(cluster, namespace))


def make_bucket(cluster: Cluster, name: str) -> None:
    """Create a bucket in the embedded cluster's store; elsewhere it must exist."""
    if cluster.s3.root is not None:
        (cluster.s3.root / name).mkdir(parents=True, exist_ok=True)
    elif not cluster.s3.endpoint:
        raise DemoError("this cluster has no S3 store: set MODELWRIGHT_S3_ENDPOINT, _ACCESS_KEY and _SECRET_KEY")


def upload(cluster: Cluster, uri: str, content: bytes) -> None:
    """Write an object to the cluster's store, replacing an existing one; ``uri`` is s3://bucket/key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    make_bucket(cluster, bucket)
    store = S3Store(
        bucket,
        endpoint=cluster.s3.endpoint,
        access_key_id=cluster.s3.access_key,
        secret_access_key=cluster.s3.secret_key,
        region=cluster.s3.region,
        client_options={"allow_http": True},
    )
    obstore.put(store, key, content)


def gateway(cluster: Cluster) -> tuple[str, int]:
    """Return host and port of Gateway gateways/models. Raises DemoError when the cluster has none."""
    if not cluster.gateway_address:
        raise DemoError("this cluster has no gateway: set MODELWRIGHT_GATEWAY to host:port of Gateway gateways/models")
    host, _, port = cluster.gateway_address.rpartition(":")
    return host, int(port)


def _by_digest(reference: str) -> dict[str, str]:
    repository, _, digest = reference.partition("@")
    if not digest:
        raise ValueError(f"{reference} has no digest")
    return {"repository": repository, "digest": digest}
