"""Container images: built and pushed by Docker where an engine responds, else by buildah; skipped when unchanged."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from platform import machine

from devcluster import host, paths
from devcluster.errors import ClusterError, log_failure
from devcluster.progress import NoProgress, Progress

BASE_IMAGE = "localhost/modelwright-base:bookworm"
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine(), machine())
"""This machine's architecture, as images name it."""
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
_PACKAGES = [
    "--include=python3,python3-venv,ca-certificates",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
]
_BOOTSTRAP = ["mmdebstrap", "--variant=minbase", *_PACKAGES, "bookworm"]
# Another architecture's packages are only unpacked, since their scripts can't run here. This does what is needed of
# them: the list of what is installed, trusted certificates, users, and Python's bytecode, which is the same everywhere.
_UNPACKED = """\
set -eu
for deb in "$1"/var/cache/apt/archives/*.deb; do
  dpkg-deb --field "$deb" | sed '/^Package:/a Status: install ok installed'
  echo
done > "$1/var/lib/dpkg/status"
cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$1/etc/ssl/certs/ca-certificates.crt"
cp "$1/usr/share/base-passwd/passwd.master" "$1/etc/passwd"
cp "$1/usr/share/base-passwd/group.master" "$1/etc/group"
"$PYTHON" -m compileall -q -s "$1" -p / --invalidation-mode unchecked-hash "$1/usr/lib/python3.11" "$1/usr/lib/python3"
"""
_FOREIGN = [
    "--variant=extract",
    "--skip=check/qemu",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    f"--extract-hook={_UNPACKED}",
    # The packages of minbase.
    "--include=?essential",
    "--include=apt",
]
_EMULATORS = {"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}
_MOUNT = """\
set -eu
buildah() { command buildah "--root=$STORE/storage" "--runroot=$STORE/run" --storage-driver=overlay "$@"; }
container=$(buildah from --pull=never --arch="$ARCHITECTURE" "$IMAGE")
trap 'buildah rm "$container" > /dev/null' EXIT
root=$(buildah mount "$container")
"""
_ENTER = """\
set_of() { buildah inspect --format "$1" "$container"; }
user=$(set_of '{{.OCIv1.Config.User}}')
env -i $(set_of '{{range .OCIv1.Config.Env}}{{println .}}{{end}}') \
  "$(command -v chroot)" ${user:+--userspec="$user"} "$root" "$@"
"""
_RECIPE = "FROM scratch\nADD base.tar /\n"


@cache
def docker_answers() -> bool:
    """Return whether a Docker engine responds; the command alone is not enough."""
    if not shutil.which("docker"):
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def base_archive(architecture: str = NATIVE) -> Path:
    """Return the path of the base image's archive, built or not."""
    described = json.dumps([_bootstrap(architecture), _RECIPE]).encode()
    return paths.cache() / "base" / f"base-{_hash(described)[:12]}.tar"


def _bootstrap(architecture: str) -> list[str]:
    if architecture == NATIVE:
        return _BOOTSTRAP
    return ["mmdebstrap", f"--architectures={architecture}", *_FOREIGN, *_PACKAGES, "bookworm"]


def base_image(architecture: str = NATIVE) -> str:
    """Return the local tag of an architecture's base image."""
    return BASE_IMAGE if architecture == NATIVE else f"{BASE_IMAGE}-{architecture}"


def ensure_base_image(progress: Progress | None = None, architecture: str = NATIVE) -> str:
    """Build Debian bookworm with Python 3.11 from Debian packages, since no public image can be pulled here."""
    shown = progress or NoProgress()
    host.install(host.IMAGE_PACKAGES, shown)
    archive, tag = base_archive(architecture), base_image(architecture)
    folder = archive.parent
    with paths.locked(paths.cache() / "locks" / "base.lock"):
        if archive.exists() and _image_id(tag) == _read_stamp(tag).get("id") is not None:
            return tag
        with shown.step("base image" if architecture == NATIVE else f"base image {architecture}"):
            folder.mkdir(parents=True, exist_ok=True)
            if not archive.exists():
                new = archive.with_suffix(".new.tar")
                _logged([*_bootstrap(architecture), str(new)], "base image", "making the base image failed")
                new.rename(archive)
            context = folder / "context"
            shutil.rmtree(context, ignore_errors=True)
            context.mkdir()
            (context / "base.tar").hardlink_to(archive)
            (context / "Containerfile").write_text(_RECIPE)
            identity = _build(context / "Containerfile", tag, {}, context, architecture)
            _save_stamp(tag, {"id": identity})
    return tag


def build_image(
    containerfile: Path | str,
    tag: str,
    build_args: Mapping[str, str] | None = None,
    context: Path | str = ".",
    progress: Progress | None = None,
    architecture: str = NATIVE,
) -> str:
    """Build an image, unless the Containerfile and the files it copies are unchanged; return the image's id
    (sha256:…).

    For another architecture than this machine's, nothing of the image runs while it is built. `BASE_IMAGE`,
    `PIP_CERT` and `PIP_INDEX_URL` get defaults when the Containerfile declares them; the environment's
    `BASE_IMAGE` replaces the usual one.
    """
    shown = progress or NoProgress()
    file, folder = Path(containerfile), Path(context)
    text = file.read_text()
    arguments = {**_usual_arguments(text, shown, architecture), **(build_args or {})}
    inputs = input_hash(text, arguments, folder)
    with paths.locked(paths.cache() / "locks" / f"image-{_file_name(tag)}.lock"):
        stamp = _read_stamp(tag)
        if stamp.get("inputs") == inputs and stamp.get("id") == _image_id(tag) is not None:
            return str(stamp["id"])
        with shown.step(f"image {tag}"):
            identity = _build(file, tag, arguments, folder, architecture)
        _save_stamp(tag, {"inputs": inputs, "id": identity})
    return identity


def push_image(tag: str, registry: str, progress: Progress | None = None) -> str:
    """Push an image to a registry, unless it is there; return `registry/name@sha256:…`, which pods can name."""
    name = tag.removeprefix("localhost/").rpartition(":")[0] or tag.removeprefix("localhost/")
    version = tag.rpartition(":")[2] if ":" in tag else "latest"
    with paths.locked(paths.cache() / "locks" / f"image-{_file_name(tag)}.lock"):
        stamp = _read_stamp(tag)
        if stamp.get("pushed") == stamp.get("id") is not None and _is_pushed(registry, name, stamp["digest"]):
            return f"{registry}/{name}@{stamp['digest']}"
        with (progress or NoProgress()).step(f"push {tag}"):
            # Uncompressed: the network is this host, and two nodes unpack it.
            digest = _push(tag, f"{registry}/{name}:{version}", ("--tls-verify=false", "--disable-compression"))
        stamp = _read_stamp(tag)
        _save_stamp(tag, {**stamp, "pushed": stamp.get("id", ""), "digest": digest})
    return f"{registry}/{name}@{digest}"


def publish(tag: str, target: str, *, plain_http: bool = False, progress: Progress | None = None) -> str:
    """Push an image to `target` (registry/name:tag), with the login of Docker or buildah there; return
    `registry/name@sha256:…`."""
    with (progress or NoProgress()).step(f"push {target}"):
        digest = _push(tag, target, ("--tls-verify=false",) if plain_http else ())
    return f"{target.rpartition(':')[0]}@{digest}"


def base_of(containerfile: Path, progress: Progress | None = None, architecture: str = NATIVE) -> tuple[str, str]:
    """Return the base that `build_image` uses, and its digest. Raises ClusterError when the engine knows none."""
    text = containerfile.read_text()
    default = re.search(r"^ARG BASE_IMAGE=(\S+)", text, re.MULTILINE)
    base = _usual_arguments(text, progress or NoProgress(), architecture).get("BASE_IMAGE") or (
        default[1] if default else ""
    )
    name, _, digest = base.partition("@")
    if not digest and docker_answers():
        command = ["docker", "image", "inspect", '--format={{join .RepoDigests " "}}', base]
        output = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        digest = digest_in(output, name.rpartition(":")[0]) if output else ""
    elif not digest:
        digest = _said([*buildah(), "inspect", "--type=image", "--format={{.FromImageDigest}}", base]).strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        name = re.sub(r":[^/:]+$", "", name)
        raise ClusterError(f"the digest of the base image {base} is not known: name it, BASE_IMAGE={name}@sha256:...")
    return base, digest


def read_file(tag: str, path: str, architecture: str = NATIVE) -> str:
    """Return the text of a file in a local image. Raises ClusterError when it can't be read."""
    if docker_answers():
        return run_command(tag, ["cat", path], architecture)
    return _run_mounted(tag, architecture, 'cat "$root$1"', path)


def run_command(tag: str, command: Sequence[str], architecture: str = NATIVE) -> str:
    """Run a command in a local image, with its user and environment and without a network, and return its output;
    emulated for another architecture. Raises ClusterError when it fails."""
    if docker_answers():
        platform = f"--platform=linux/{architecture}"
        return _said(
            ["docker", "run", "--rm", platform, "--network=none", f"--entrypoint={command[0]}", tag, *command[1:]]
        )
    host.install(host.IMAGE_PACKAGES, NoProgress())
    if architecture == NATIVE:
        return _run_mounted(tag, architecture, _ENTER, *command)
    host.install(host.EMULATOR_PACKAGES, NoProgress())
    emulator = _EMULATORS[architecture]
    return _run_mounted(
        tag, architecture, f'cp "$(command -v {emulator})" "$root/"\n{_ENTER}', f"/{emulator}", *command
    )


def _run_mounted(tag: str, architecture: str, script: str, *arguments: str) -> str:
    """Run a shell script with an image mounted at $root, and return its output."""
    environment = {"STORE": str(paths.cache() / "buildah"), "IMAGE": tag, "ARCHITECTURE": architecture}
    # All in one namespace: a mount is invisible in another one.
    command = ["unshare", "--mount", "--net", "--propagation=slave", "sh", "-c", f"{_MOUNT}{script}", "sh", *arguments]
    with paths.locked(paths.cache() / "locks" / "buildah.lock"):
        return _said(command, environment)


def build_command(
    file: Path, tag: str, arguments: Mapping[str, str], context: Path, id_file: Path, architecture: str = NATIVE
) -> list[str]:
    build_args = [each for key, value in sorted(arguments.items()) for each in ("--build-arg", f"{key}={value}")]
    common = [*build_args, "--file", str(file), "--tag", tag, "--iidfile", str(id_file), str(context)]
    common = [f"--platform=linux/{architecture}", *common]
    if docker_answers():
        return ["docker", "build", *common]
    # The host's trust store: where a local CA intercepts TLS, only that CA verifies.
    trusted = [f"--volume={_CERTIFICATES.parent}:{_CERTIFICATES.parent}:ro"] if _CERTIFICATES.exists() else []
    # Docker's builder knows this one.
    platform = f"--build-arg=BUILDPLATFORM=linux/{NATIVE}"
    return [*buildah(), "build", "--layers", platform, *trusted, *common]


def buildah() -> list[str]:
    """Run in separate mount namespaces, so that the overlay leaves no mount on the host."""
    store = paths.cache() / "buildah"
    return [
        *("unshare", "--mount", "--propagation=slave", "buildah"),
        *(f"--root={store / 'storage'}", f"--runroot={store / 'run'}", "--storage-driver=overlay"),
    ]


def input_hash(text: str, arguments: Mapping[str, str], context: Path) -> str:
    """Return a hash of everything that determines an image: the Containerfile, its arguments, the files it copies."""
    hasher = hashlib.sha256(json.dumps([text, sorted(arguments.items())]).encode())
    for base in filter(None, map(arguments.get, ("BASE_IMAGE", "BUILD_IMAGE"))):
        hasher.update((_image_id(base) or "").encode())
    for source in copied_paths(text):
        for file in sorted(_files(context, source)):
            hasher.update(f"\0{file.relative_to(context)}\0{file.stat().st_mode & 0o111}\0".encode())
            hasher.update(hashlib.sha256(file.read_bytes()).digest())
    return hasher.hexdigest()


def copied_paths(text: str) -> list[str]:
    """Return the paths of the context that a Containerfile copies from."""
    sources: list[str] = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words = line.split()
        if not words or words[0].upper() not in ("COPY", "ADD") or any(word.startswith("--from=") for word in words):
            continue
        plain = [word for word in shlex.split(line)[1:] if not word.startswith("--")]
        sources += plain[:-1]
    return sources


def _files(context: Path, source: str) -> list[Path]:
    files: list[Path] = []
    for start in context.glob(source.strip("/")) if source.strip("./") else [context]:
        inside = start.rglob("*") if start.is_dir() else [start]
        files += [file for file in inside if file.is_file() and "__pycache__" not in file.parts]
    return files


def _usual_arguments(text: str, progress: Progress, architecture: str = NATIVE) -> dict[str, str]:
    declared = set(re.findall(r"^ARG\s+(\w+)", text, re.MULTILINE))
    usual: dict[str, str] = {}
    if "BASE_IMAGE" in declared and os.environ.get("BASE_IMAGE"):
        usual["BASE_IMAGE"] = os.environ["BASE_IMAGE"]
    elif "BASE_IMAGE" in declared and not docker_answers():
        usual["BASE_IMAGE"] = ensure_base_image(progress, architecture)
        if architecture != NATIVE and "BUILD_IMAGE" in declared:
            usual["BUILD_IMAGE"] = ensure_base_image(progress)
    if "PIP_CERT" in declared and not docker_answers() and _CERTIFICATES.exists():
        usual["PIP_CERT"] = str(_CERTIFICATES)
    if "PIP_INDEX_URL" in declared and os.environ.get("PIP_INDEX_URL"):
        usual["PIP_INDEX_URL"] = os.environ["PIP_INDEX_URL"]
    return usual


def _build(file: Path, tag: str, arguments: Mapping[str, str], context: Path, architecture: str) -> str:
    if not docker_answers():
        host.install(host.IMAGE_PACKAGES, NoProgress())
    id_file = paths.cache() / "images" / f"{_file_name(tag)}.id"
    id_file.parent.mkdir(parents=True, exist_ok=True)
    command = build_command(file, tag, arguments, context, id_file, architecture)
    # Mounts in namespaces hide buildah's store from each other: build one at a time.
    with paths.locked(paths.cache() / "locks" / "buildah.lock"):
        _logged(command, f"image {_file_name(tag)}", f"building {tag} failed")
    identity = id_file.read_text().strip()
    return identity if identity.startswith("sha256:") else f"sha256:{identity}"


def _push(tag: str, target: str, options: Sequence[str]) -> str:
    """Push and return the digest; the options are buildah's, since Docker's engine has none of them."""
    failure = f"pushing {tag} to {target} failed"
    if docker_answers():
        _logged(["docker", "tag", tag, target], f"push {_file_name(tag)}", failure)
        _logged(["docker", "push", target], f"push {_file_name(tag)}", failure)
        command = ["docker", "inspect", '--format={{join .RepoDigests " "}}', target]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return digest_in(output, target.rpartition(":")[0])
    digest = paths.cache() / "images" / f"{_file_name(tag)}.digest"
    digest.parent.mkdir(parents=True, exist_ok=True)
    command = [*buildah(), "push", *options, f"--digestfile={digest}", tag, f"docker://{target}"]
    with paths.locked(paths.cache() / "locks" / "buildah.lock"):
        _logged(command, f"push {_file_name(tag)}", failure)
    return digest.read_text().strip()


def digest_in(repo_digests: Sequence[str], repository: str) -> str:
    """Return the digest of an image in this repository: Docker lists one for each repository it was pushed to. Those
    of Docker Hub have a shorter name; the first one is taken then."""
    digest_by_repository = dict(reference.split("@", 1) for reference in reversed(repo_digests))
    return digest_by_repository.get(repository) or repo_digests[0].rpartition("@")[2]


def _image_id(tag: str) -> str | None:
    """Return the id of a local image; None when there is none."""
    if docker_answers():
        command = ["docker", "image", "inspect", "--format={{.Id}}", tag]
    elif shutil.which("buildah"):
        command = [*buildah(), "inspect", "--type=image", "--format={{.FromImageID}}", tag]
    else:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    identity = done.stdout.strip()
    if done.returncode or not identity:
        return None
    return identity if identity.startswith("sha256:") else f"sha256:{identity}"


def _is_pushed(registry: str, name: str, digest: str) -> bool:
    request = urllib.request.Request(f"http://{registry}/v2/{name}/manifests/{digest}", method="HEAD")
    request.add_header("Accept", _MANIFESTS)
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (OSError, urllib.error.HTTPError):
        return False


def _logged(command: Sequence[str], name: str, failure: str) -> None:
    log = paths.cache() / "logs" / f"{name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        out.write(f"--- {shlex.join(command)}\n".encode())
        out.flush()
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=_environment(), check=False
        )
    if done.returncode:
        raise log_failure(failure, log)


def _said(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**_environment(), **(environment or {})},
        check=False,
    )
    if done.returncode:
        raise log_failure(f"{shlex.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "BUILDAH_ISOLATION": "chroot", "PYTHON": sys.executable}


def _read_stamp(tag: str) -> dict[str, str]:
    try:
        stamp = json.loads((paths.cache() / "images" / f"{_file_name(tag)}.json").read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _save_stamp(tag: str, stamp: Mapping[str, str]) -> None:
    file = paths.cache() / "images" / f"{_file_name(tag)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(stamp))


def _file_name(tag: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", tag)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
