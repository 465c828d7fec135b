"""Provenance of an image: an in-toto statement with a predicate of SLSA v1.

`source` and `materials` read the work tree; the statement is a pure function of their results.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from scripts.registry import Image

STATEMENT = "https://in-toto.io/Statement/v1"
SLSA = "https://slsa.dev/provenance/v1"
CYCLONEDX = "https://cyclonedx.org/bom"
BUILD_TYPE = "https://modelwright.dev/make-push/v1"
BUILDER = "https://modelwright.dev/builders/make-push"
"""The builder, unless BUILDER_ID names it: an unverified machine."""

Json = dict[str, Any]


class NoSource(Exception):
    """The origin of the image is unknown; the text says why."""


@dataclass(frozen=True)
class Source:
    """The built commit, and whether the work tree had changes."""

    commit: str
    dirty: bool
    repository: str = ""


@dataclass(frozen=True)
class Build:
    """The builder and the inputs of an image."""

    name: str
    tag: str
    source: Source
    base: str
    base_digest: str
    materials: Mapping[str, str]
    """Files of the work tree that determine the installed packages, with their SHA-256."""
    builder: str
    began: datetime
    ended: datetime


def source(root: Path) -> Source:
    """Read the source from Git. Raises NoSource outside a Git work tree."""
    commit = _git(root, "rev-parse", "HEAD").strip()
    dirty = bool(_git(root, "status", "--porcelain").strip())
    try:
        remote = _git(root, "remote", "get-url", "origin").strip()
    except NoSource:
        remote = ""
    return Source(commit, dirty, _without_login(remote))


def materials(root: Path, name: str) -> dict[str, str]:
    """Hash the lock that an image installs from, and its Containerfile."""
    files = [f"requirements/{name}.txt", f"images/{name}/Containerfile"]
    return {file: hashlib.sha256((root / file).read_bytes()).hexdigest() for file in files}


def statement(image: Image, predicate_type: str, predicate: Mapping[str, Any]) -> Json:
    subject = {"name": image.name, "digest": {"sha256": image.digest.removeprefix("sha256:")}}
    return {"_type": STATEMENT, "subject": [subject], "predicateType": predicate_type, "predicate": predicate}


def provenance(build: Build) -> Json:
    """Build the predicate of SLSA v1."""
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"image": build.name, "tag": build.tag, "baseImage": build.base},
            "internalParameters": {"dirty": build.source.dirty},
            "resolvedDependencies": _dependencies(build),
        },
        "runDetails": {
            "builder": {"id": build.builder},
            "metadata": {"startedOn": _time(build.began), "finishedOn": _time(build.ended)},
        },
    }


def of_index(predicate: Json, images: Mapping[str, Image]) -> Json:
    """Build the predicate of an index of images from that of one of them: its materials are the images, without a
    base."""
    definition = predicate["buildDefinition"]
    (tree,) = (each for each in definition["resolvedDependencies"] if each["name"] == "source")
    made_of = [
        {
            "name": f"image linux/{architecture}",
            "uri": f"oci://{image.name}",
            "digest": {"sha256": image.digest.removeprefix("sha256:")},
        }
        for architecture, image in sorted(images.items())
    ]
    parameters = {key: value for key, value in definition["externalParameters"].items() if key != "baseImage"}
    changed = {"externalParameters": parameters, "resolvedDependencies": [tree, *made_of]}
    return {**predicate, "buildDefinition": {**definition, **changed}}


def _dependencies(build: Build) -> Sequence[Json]:
    tree = {"name": "source", "digest": {"gitCommit": build.source.commit}}
    if build.source.repository:
        tree["uri"] = f"git+{build.source.repository}"
    base = {
        "name": "base image",
        "uri": f"oci://{build.base}",
        "digest": {"sha256": build.base_digest.removeprefix("sha256:")},
    }
    return [tree, base, *({"name": file, "digest": {"sha256": sha}} for file, sha in sorted(build.materials.items()))]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _without_login(remote: str) -> str:
    """Return a remote's address without user and password, which may be a token."""
    if re.match(r"[a-z+]+://", remote):
        parts = urlsplit(remote)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
    # `user@host:path`; a folder of this machine is meaningless elsewhere.
    match = re.fullmatch(r"(?:[^@/]+@)?([^/:]+):(.+)", remote)
    return f"ssh://{match[1]}/{match[2].lstrip('/')}" if match else ""


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoSource(f"git can't be run: {error.strerror}") from error
    if done.returncode:
        raise NoSource(f"{root} is no Git work tree, so that nothing says which commit is built: {done.stderr.strip()}")
    return done.stdout
