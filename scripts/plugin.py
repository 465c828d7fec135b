"""Packs kubectl-modelwright for krew, one archive for each platform, and writes its manifest: `make plugin`."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
KREW = ROOT / "manifests" / "krew"
LOCK = ROOT / "requirements" / "cli.txt"
MODULES, PARTS = ("__init__.py", "untrusted_json.py"), ("api", "cli", "core", "kube", "net", "render", "traffic")
"""Modules and packages that the plugin imports."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS: Mapping[str, str] = {
    "linux/amd64": "x86_64-manylinux2014",
    "linux/arm64": "aarch64-manylinux2014",
    "darwin/amd64": "x86_64-apple-darwin",
    "darwin/arm64": "aarch64-apple-darwin",
}
"""By krew's name: uv's name of the oldest supported system."""


def project() -> dict[str, Any]:
    """Read the table `project` of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def libraries() -> list[str]:
    """List all distributions of the extra `cli`, as installed here."""
    table = project()
    names: dict[str, None] = {}
    requirements = [*table["dependencies"], *table["optional-dependencies"]["cli"]]
    while requirements:
        requirement = Requirement(requirements.pop())
        name = canonicalize_name(requirement.name)
        if name not in names and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            names[name] = None
            requirements += distribution(name).requires or []
    return sorted(names)


def locked(names: Iterable[str]) -> str:
    """Return their entries of the lock, with hashes."""
    entries = {}
    for entry in re.split(r"\n(?=[a-z0-9])", LOCK.read_text()):
        entries[canonicalize_name(entry.split("==")[0])] = entry
    return "\n".join(entries[name] for name in names) + "\n"


def fetched(platform: str, folder: Path) -> list[Path]:
    """Fetch the libraries of a platform from the registry, checked against the lock: a folder for each version of
    Python."""
    requirements = folder / "requirements.txt"
    requirements.write_text(locked(libraries()))
    folders = []
    for python in PYTHONS:
        target = folder / python
        subprocess.run(
            [
                sys.executable,
                "-m",
                "uv",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "--only-binary",
                ":all:",
                "--python-version",
                python,
                "--python-platform",
                PLATFORMS[platform],
                "--target",
                target,
                "-r",
                requirements,
            ],
            check=True,
        )
        folders.append(target)
    return folders


def pack(installed: Iterable[Path], archive: Path) -> str:
    """Write an archive of the plugin with these libraries merged: compiled modules are named by their version of
    Python, and all other files are equal. Return its SHA-256; equal content gives an equal archive."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lib = folder / "lib"
        for library in installed:
            # PyYAML works without its compiled half, which the plugin does not use.
            left_out = shutil.ignore_patterns("__pycache__", "bin", ".lock", "_yaml.*")
            shutil.copytree(library, lib, dirs_exist_ok=True, ignore=left_out)
        (lib / "modelwright").mkdir(parents=True)
        source = ROOT / "operator" / "modelwright"
        for module in MODULES:
            shutil.copy(source / module, lib / "modelwright")
        for part in PARTS:
            shutil.copytree(source / part, lib / "modelwright" / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(KREW / "kubectl-modelwright", folder)
        shutil.copy(ROOT / "LICENSE", folder)
        archive.parent.mkdir(parents=True, exist_ok=True)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        with (
            archive.open("wb") as file,
            gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for path in files:
                tar.add(path, path.relative_to(folder).as_posix(), filter=_plain)
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry


def manifest(version: str, archives: Mapping[str, tuple[str, str]]) -> str:
    """Render the manifest for krew; `archives`: address and SHA-256 by platform."""
    template = yaml.safe_load((KREW / "modelwright.yaml").read_text())
    template["spec"]["version"] = f"v{version}"
    template["spec"]["platforms"] = [
        {
            "selector": {"matchLabels": dict(zip(("os", "arch"), platform.split("/"), strict=True))},
            "uri": uri,
            "sha256": digest,
            "bin": "kubectl-modelwright",
            "files": [{"from": "*", "to": "."}],
        }
        for platform, (uri, digest) in archives.items()
    ]
    text: str = yaml.safe_dump(template, sort_keys=False, width=110)
    return text


def release(version: str, url: str, out: Path) -> tuple[list[Path], Path]:
    """Write the archive of each platform and the manifest with `url` as their location; return both. Raises
    CalledProcessError when a library is unavailable."""
    archives = {}
    files = []
    for platform in PLATFORMS:
        archive = out / f"kubectl-modelwright_v{version}_{platform.replace('/', '_')}.tar.gz"
        with tempfile.TemporaryDirectory() as folder:
            digest = pack(fetched(platform, Path(folder)), archive)
        files.append(archive)
        archives[platform] = (f"{url.rstrip('/')}/{archive.name}", digest)
        print(f"    {archive.name}  {archive.stat().st_size / 1e6:.1f} MB  sha256 {digest}")
    file = out / "modelwright.yaml"
    file.write_text(manifest(version, archives))
    print(f"    {file.name}, for krew")
    return files, file


def main() -> int:
    """Pack all. Exit status 1 when a library is unavailable; uv names it."""
    parser = argparse.ArgumentParser(prog="make plugin", description=__doc__)
    parser.add_argument("--url", default="https://example.com/modelwright", help="where the archives will lie")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    try:
        release(project()["version"], options.url, options.out)
    except subprocess.CalledProcessError:
        print("error: the libraries of a platform can't be had", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
