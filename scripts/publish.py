"""Publishes to a registry for `make release`: images for several architectures behind one index, and charts.

Users name the index, and a node takes the image of its architecture. `NAME:VERSION` is the index,
`NAME:VERSION-arm64` and so on are its images.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from demo.platform import image_values
from devcluster import parts
from scripts.registry import INDEX, MANIFEST, Image, Login, Registry, digest_of

CHARTS = ("modelwright-crds", "modelwright")
STARTS: Mapping[str, str] = {
    "operator": "import modelwright.app.main, cel_expr_python, promql_parser, uvloop, orjson, msgspec",
    "fetch": "import modelwright.agents.fetcher.command, obstore, huggingface_hub, model_signing",
    "mlserver": "import mlserver.cli, mlserver_sklearn, mlserver_xgboost, mlserver_lightgbm",
    "trainer": "import examples.digits.train",
    "datacheck": "import datacheck, pandera, pyarrow.parquet",
}
"""By image: the Python code that loads everything compiled in it, for a test start."""

Json = dict[str, Any]


class BadRelease(Exception):
    """The registry's content differs from the release, or can't be written; the text says what."""


def index_of(manifests: Mapping[str, bytes]) -> bytes:
    """Build an OCI image index of manifests by architecture."""
    listed = [
        {
            "mediaType": json.loads(data).get("mediaType", MANIFEST),
            "size": len(data),
            "digest": digest_of(data),
            "platform": {"architecture": architecture, "os": "linux"},
        }
        for architecture, data in sorted(manifests.items())
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}, indent=2).encode()


def put_index(registry: Registry, tag: str, digests: Mapping[str, str]) -> str:
    """Write the index of pushed images by architecture under a tag; return its digest."""
    manifests = {}
    for architecture, digest in digests.items():
        stored = registry.manifest(digest)
        if stored is None:
            raise BadRelease(f"the registry has no manifest {digest} for {architecture}, though it was pushed")
        manifests[architecture] = stored
    data = index_of(manifests)
    registry.put_manifest(tag, data, INDEX)
    return digest_of(data)


def verify_index(registry: Registry, image: Image, tag: str, digests: Mapping[str, str]) -> None:
    """Raise BadRelease unless the tag is this index, with an image for each architecture."""
    data = registry.manifest(tag)
    if data is None or digest_of(data) != image.digest:
        raise BadRelease(f"{image.name}:{tag} is {digest_of(data) if data else 'not there'}, and not {image.digest}")
    published = {each["platform"]["architecture"]: each["digest"] for each in json.loads(data)["manifests"]}
    if published != dict(digests):
        raise BadRelease(f"{image}: its images are {published}, and not {dict(digests)}")
    for architecture, digest in published.items():
        manifest = json.loads(registry.manifest(digest) or b"{}")
        if not manifest:
            raise BadRelease(f"{image}: its image {digest} isn't there")
        says = json.loads(registry.blob(manifest["config"]["digest"]))["architecture"]
        if says != architecture:
            raise BadRelease(f"{image}: the image for {architecture} says that it is for {says}")


def chart_values(text: str, references: Mapping[str, str]) -> str:
    """Return the chart's values.yaml with the released images as defaults, keeping comments. Raises BadRelease."""
    wanted = image_values(references)
    for field in ("image", "fetchImage"):
        for member, value in wanted[field].items():  # type: ignore[attr-defined]
            expression = rf"(?m)(^{field}:\n(?:  .*\n)*?  {member}: ).*$"
            text = re.sub(expression, lambda match, value=value: f'{match[1]}"{value}"', text, count=1)
    images = json.dumps(wanted["runtimes"]["images"])  # type: ignore[index]
    text = re.sub(r"(?m)(^runtimes:\n(?:  .*\n)*?  images: )\{\}$", lambda match: match[1] + images, text, count=1)
    values = yaml.safe_load(text)
    if not all(values[field].items() >= wanted[field].items() for field in ("image", "fetchImage")) or (  # type: ignore[attr-defined]
        values["runtimes"]["images"] != wanted["runtimes"]["images"]  # type: ignore[index]
    ):
        raise BadRelease("charts/modelwright/values.yaml has no image, fetchImage or runtimes.images to write them to")
    return text


def package_chart(root: Path, name: str, references: Mapping[str, str], out: Path) -> Path:
    """Package a chart; the operator's names the images by digest, so that it installs without values."""
    with TemporaryDirectory() as folder:
        chart = Path(folder) / name
        shutil.copytree(root / "charts" / name, chart)
        if name == "modelwright":
            values = chart / "values.yaml"
            values.write_text(chart_values(values.read_text(), references))
        _helm("package", str(chart), "--destination", str(out))
    (packed,) = out.glob(f"{name}-[0-9]*.tgz")
    return packed


def push_chart(packed: Path, place: str, login: Login, *, plain_http: bool) -> str:
    """Push a packaged chart to `<place>/NAME`; return its digest."""
    with _logged_in(place, login) as config:
        output = _helm("push", str(packed), f"oci://{place}", *config, *(["--plain-http"] if plain_http else []))
    match = re.search(r"Digest: (sha256:[0-9a-f]{64})", output)
    if match is None:
        raise BadRelease(f"helm push says no digest: {output}")
    return match[1]


def verify_chart(packed: Path, place: str, version: str, login: Login, *, plain_http: bool) -> None:
    """Raise BadRelease unless pulling the chart gives the same files."""
    name = packed.name.removesuffix(f"-{version}.tgz")
    plain = ["--plain-http"] if plain_http else []
    with TemporaryDirectory() as folder, _logged_in(place, login) as config:
        _helm("pull", f"oci://{place}/{name}", "--version", version, "--destination", folder, *config, *plain)
        pulled = Path(folder) / packed.name
        if _contents(pulled) != _contents(packed):
            raise BadRelease(f"{place}/{name}:{version} is another chart than {packed.name}")


def _contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry)) is not None}


@contextmanager
def _logged_in(place: str, login: Login) -> Iterator[list[str]]:
    """Yield helm's options for the login of Docker or Buildah, which may come from a credential helper."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        entry = {"auth": login.basic.removeprefix("Basic ")} if login.user else {}
        file.touch(0o600)
        file.write_text(json.dumps({"auths": {place.partition("/")[0]: entry} if entry else {}}))
        yield ["--registry-config", str(file)]


def _helm(*arguments: str) -> str:
    """Run helm and return its output. Raises BadRelease."""
    parts.build(["helm"])
    done = subprocess.run([parts.binary_path("helm"), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadRelease(f"helm {' '.join(arguments[:3])}: {done.stderr.strip()}")
    return done.stdout + done.stderr
