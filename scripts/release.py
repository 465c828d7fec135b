"""Makes a release with one command: `make release VERSION=1.2.3 REGISTRY=... URL=... SIGN_KEY=release.key`.

`STEPS` lists its steps. dist/VERSION/release.json records finished steps: an interrupted release continues from
there when it is started again on the same commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

from devcluster import ClusterError
from devcluster.images import NATIVE, build_image, publish, run_command
from devcluster.progress import LiveProgress
from scripts import changelog, plugin, provenance, samples, sbom, signing
from scripts import publish as published
from scripts.images import NAMES, Json, Signing, containerfile
from scripts.registry import Image, Registry, RegistryError, find_login

ROOT = Path(__file__).resolve().parent.parent
SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
)
"""Without build metadata: tags of images can't contain a plus sign."""
ARCHITECTURES = ("amd64", "arm64")
INDEX = "index"
VERSIONED = (
    "operator/modelwright/__init__.py",
    "charts/*/Chart.yaml",
    "charts/*/README.md",
    "manifests/install/**/*.yaml",
    "docs/how-to/*.md",
)
"""Files beside pyproject.toml that contain the version."""


class Refused(Exception):
    """The release is refused; the text says why, and what to do."""


ERRORS = (
    Refused,
    RegistryError,
    ClusterError,
    changelog.NoSection,
    published.BadRelease,
    signing.BadKey,
    signing.NotSigned,
    provenance.NoSource,
)


@dataclass
class State:
    """Finished parts of a release: dist/VERSION/release.json."""

    version: str
    commit: str = ""
    done: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file beside release.json, by name."""
    images: dict[str, dict[str, str]] = field(default_factory=dict)
    """By image: the digest for each architecture, and that of the index."""
    charts: dict[str, str] = field(default_factory=dict)
    """Digest of each chart."""


@dataclass
class Release:
    """One release: its options and its state."""

    version: str
    place: str
    """Registry and path for images and charts."""
    url: str
    """Public location of the files."""
    signing: Signing
    root: Path = ROOT
    day: date = field(default_factory=lambda: datetime.now(UTC).date())
    plain_http: bool = False
    folder: Path | None = None
    """Folder of the files; dist/VERSION by default."""
    state: State = field(init=False)

    def __post_init__(self) -> None:
        self.state = State(self.version)
        if self._record.exists():
            recorded = State(**json.loads(self._record.read_text()))
            if recorded.commit == git(self.root, "rev-parse", "HEAD"):
                self.state = recorded

    @property
    def out(self) -> Path:
        return self.folder or self.root / "dist" / self.version

    @property
    def _record(self) -> Path:
        return self.out / "release.json"

    @property
    def changelog(self) -> Path:
        return self.root / "CHANGELOG.md"

    def registry(self, name: str, digest: str = "") -> tuple[Registry, Image]:
        """Return a client of the repository `name` at the place, and the image with this digest there."""
        host, _, path = self.place.partition("/")
        image = Image(host, f"{path}/{name}".lstrip("/"), digest)
        return Registry(image, find_login(image), plain_http=self.plain_http), image

    def reference(self, name: str) -> str:
        """Return the public reference of an image: the index, by digest."""
        return f"{self.place}/{name}@{self.state.images[name][INDEX]}"

    def digests(self, name: str) -> dict[str, str]:
        """Return the digests of the images behind an index, by architecture."""
        return {architecture: self.state.images[name][architecture] for architecture in ARCHITECTURES}

    def keep(self, *files: Path) -> None:
        """Record published files."""
        for file in files:
            self.state.files[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self._record.write_text(json.dumps(asdict(self.state), indent=2) + "\n")


@dataclass(frozen=True)
class Step:
    """One step of a release. Steps are idempotent."""

    name: str
    says: str
    run: Callable[[Release], None]


def git(root: Path, *arguments: str) -> str:
    """Return git's output, stripped. Raises Refused."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def check(release: Release) -> None:
    """Raise Refused unless this version can be released from this work tree."""
    if not SEMVER.fullmatch(release.version):
        raise Refused(f"VERSION={release.version} isn't a version as semver.org has it, such as 1.2.3 or 1.2.3-rc.1")
    changes = git(release.root, "status", "--porcelain")
    if changes:
        raise Refused(f"the work tree has changes that are in no commit; commit or drop them:\n{changes}")
    text = release.changelog.read_text()
    if release.version in changelog.versions(text):
        raise Refused(f"CHANGELOG.md has a section of {release.version} already: name another version")
    changelog.section(text, "Unreleased")
    if git(release.root, "tag", "--list", f"v{release.version}"):
        raise Refused(f"there is a tag v{release.version} already: name another version")
    registry, image = release.registry("operator")
    if registry.manifest(release.version) is not None:
        raise Refused(f"{image.name}:{release.version} is in the registry already: name another version")


def set_version(root: Path, version: str) -> list[Path]:
    """Write the version into all files that contain it; return the changed ones."""
    project = root / "pyproject.toml"
    old = re.search(r'^version = "(.+)"$', project.read_text(), re.MULTILINE)
    if old is None:
        raise Refused('pyproject.toml has no line `version = "..."`')
    places = {project: rf'(?m)^(version = "){re.escape(old[1])}(?=")'}
    # The version may also be part of a longer one.
    bounded = rf"((?<![\d.])){re.escape(old[1])}(?![\d-]|\.\d)"
    places |= {file: bounded for pattern in VERSIONED for file in sorted(root.glob(pattern))}
    changed = []
    for file, expression in places.items():
        text = file.read_text()
        new = re.sub(expression, rf"\g<1>{version}", text)
        if new != text:
            file.write_text(new)
            changed.append(file)
    return changed


def write_version(release: Release) -> None:
    changed = [*set_version(release.root, release.version), release.changelog]
    release.changelog.write_text(changelog.released(release.changelog.read_text(), release.version, release.day))
    git(release.root, "add", "--", *map(str, changed))
    git(release.root, "commit", "--quiet", "--message", f"Release {release.version}")
    git(release.root, "tag", "--annotate", f"v{release.version}", "--message", f"Modelwright {release.version}")
    release.state.commit = git(release.root, "rev-parse", "HEAD")
    # Signatures name the built commit.
    release.signing = replace(release.signing, source=provenance.source(release.root))


def build_wheel(release: Release) -> None:
    """The same commit gives the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, str(release.root)]
        epoch = git(release.root, "log", "-1", "--format=%ct")
        _run(command, {"SOURCE_DATE_EPOCH": epoch})
        (built,) = Path(folder).glob("*.whl")
        release.keep(_moved(built, release.out))


def pack_plugin(release: Release) -> None:
    try:
        archives, manifest = plugin.release(release.version, release.url, release.out)
    except subprocess.CalledProcessError as error:
        raise Refused("the plugin's libraries can't be had; uv says above which") from error
    release.keep(*archives, manifest)


def local(name: str, architecture: str) -> str:
    """Return the local tag of a release's image."""
    return f"localhost/modelwright/{name}:release-{architecture}"


def build_images(release: Release) -> None:
    with LiveProgress("images") as progress:
        for name in NAMES:
            for architecture in ARCHITECTURES:
                build_image(
                    containerfile(name),
                    local(name, architecture),
                    context=release.root,
                    progress=progress,
                    architecture=architecture,
                )


def start_images(release: Release) -> None:
    """Load everything compiled in each image, emulated for another architecture."""
    del release
    for name in NAMES:
        for architecture in ARCHITECTURES:
            command = [
                "/opt/venv/bin/python",
                "-c",
                f"import platform; {published.STARTS[name]}; print(platform.machine())",
            ]
            machine = run_command(local(name, architecture), command, architecture).strip().splitlines()[-1]
            print(f"    {name}: started on {machine}{'' if architecture == NATIVE else ', emulated'}", flush=True)


def push_images(release: Release) -> None:
    with LiveProgress("push") as progress:
        for name in NAMES:
            registry, _ = release.registry(name)
            digests = {}
            for architecture in ARCHITECTURES:
                target = f"{release.place}/{name}:{release.version}-{architecture}"
                pushed = publish(local(name, architecture), target, plain_http=release.plain_http, progress=progress)
                digests[architecture] = pushed.partition("@")[2]
            index = published.put_index(registry, release.version, digests)
            release.state.images[name] = {**digests, INDEX: index}
    samples.push(release.place, samples.train(), plain_http=release.plain_http)


def sign_images(release: Release) -> None:
    """Sign each image and each index, with its provenance and its bill of materials, which is also a file."""
    for name in NAMES:
        bills, predicates = {}, {}
        for architecture in ARCHITECTURES:
            with tempfile.TemporaryDirectory() as folder:
                written = sbom.write(name, local(name, architecture), Path(folder), architecture)
                bill = release.out / f"{name}-{architecture}.cdx.json"
                bill.write_bytes(written.read_bytes())
            release.keep(bill)
            bills[architecture] = json.loads(bill.read_text())
            predicates[architecture] = release.signing.predicate(name, release.version, architecture)
        sign_index(release, name, predicates, bills)


def sign_index(release: Release, name: str, predicates: Mapping[str, Json], bills: Mapping[str, Json]) -> None:
    """Sign an index and its images; predicates and bills of materials are by architecture."""
    registry, index = release.registry(name, release.state.images[name][INDEX])
    images = {each: replace(index, digest=digest) for each, digest in release.digests(name).items()}
    for architecture, image in images.items():
        release.signing.attach(registry, image, predicates[architecture], bills[architecture])
    predicate = provenance.of_index(predicates[min(predicates)], images)
    print(f"    {release.signing.attach(registry, index, predicate, sbom.merged(list(bills.values())))}", flush=True)


def push_charts(release: Release) -> None:
    references = {name: release.reference(name) for name in ("operator", "fetch", "mlserver")}
    for name in published.CHARTS:
        registry, image = release.registry(f"charts/{name}")
        packed = published.package_chart(release.root, name, references, release.out)
        release.keep(packed)
        place = image.name.rpartition("/")[0]
        digest = published.push_chart(packed, place, find_login(image), plain_http=release.plain_http)
        release.state.charts[name] = digest
        signing.sign(registry, replace(image, digest=digest), release.signing.signer, [])


def verify(release: Release) -> None:
    """Verify as a user would: by tag from the registry, with the public key."""
    key = release.signing.signer.public_key
    for name in release.state.images:
        registry, index = release.registry(name, release.state.images[name][INDEX])
        published.verify_index(registry, index, release.version, release.digests(name))
        for digest in release.state.images[name].values():
            signing.verify(registry, replace(index, digest=digest), key)
        print(f"    {index}: {', '.join(ARCHITECTURES)}, signed", flush=True)
    for name, digest in release.state.charts.items():
        registry, image = release.registry(f"charts/{name}", digest)
        signing.verify(registry, image, key, needed=())
        packed = release.out / f"{name}-{release.version}.tgz"
        place = image.name.rpartition("/")[0]
        login = find_login(image)
        published.verify_chart(packed, place, release.version, login, plain_http=release.plain_http)
        print(f"    oci://{image}: signed", flush=True)


def write_notes(release: Release) -> None:
    notes = release.out / "RELEASE_NOTES.md"
    notes.write_text(notes_of(release))
    release.keep(notes)


def notes_of(release: Release) -> str:
    """Write the release notes: the changelog's section, and the published artifacts."""
    entries = changelog.section(release.changelog.read_text(), release.version)
    files = "".join(
        f"| [{name}]({release.url.rstrip('/')}/{name}) | `{digest}` |\n"
        for name, digest in sorted(release.state.files.items())
        if name != "RELEASE_NOTES.md"
    )
    images = "".join(f"| `{release.reference(name)}` | {', '.join(ARCHITECTURES)} |\n" for name in release.state.images)
    charts = "".join(
        f"helm install {name} oci://{release.place}/charts/{name} --version {release.version} \\\n"
        "  --namespace modelwright-system --create-namespace\n"
        for name in release.state.charts
    )
    return (
        f"# Modelwright {release.version}\n\n{entries}\n## Installing\n\n```\n{charts}```\n\n"
        f"## Images\n\n| image | for |\n|---|---|\n{images}\n"
        f"## Files\n\n| file | SHA-256 |\n|---|---|\n{files}"
    )


def sign_files(release: Release) -> None:
    """Write the SHA-256 of all files, as `sha256sum --check` reads them, and the list's signature as cosign writes
    it."""
    sums = release.out / "SHA256SUMS"
    sums.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(release.state.files.items())))
    (release.out / "SHA256SUMS.sig").write_text(signing.sign_blob(release.signing.signer, sums.read_bytes()) + "\n")


STEPS: Sequence[Step] = (
    Step(
        "version", "move Unreleased of CHANGELOG.md to the version, write it into all files, commit, tag", write_version
    ),
    Step("wheel", "build the wheel", build_wheel),
    Step("plugin", "pack kubectl-modelwright for each platform, with the manifest for krew", pack_plugin),
    Step("images", f"build the images for {', '.join(ARCHITECTURES)}", build_images),
    Step("start", "start each image once, those of another architecture by emulation", start_images),
    Step("push", "push images, an index of each, and the quickstart's samples", push_images),
    Step("sign", "sign images and indexes, with provenance and bills of materials", sign_images),
    Step("charts", "pack the charts with these images as defaults, push and sign them", push_charts),
    Step("verify", "read images, charts and signatures back from the registry", verify),
    Step("notes", "write RELEASE_NOTES.md", write_notes),
    Step("sums", "write SHA256SUMS and sign it", sign_files),
)


def play(release: Release, steps: Sequence[Step] = STEPS, say: Callable[[str], None] = print) -> None:
    """Run the remaining steps, recording each."""
    if not release.state.done:
        check(release)
    for step in steps:
        if step.name in release.state.done:
            say(f"==> {step.name}: done before")
            continue
        say(f"==> {step.name}: {step.says}")
        step.run(release)
        release.state.done.append(step.name)
        release.save()


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise Refused(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")


def _moved(file: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name
    target.write_bytes(file.read_bytes())
    return target


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Release. Exit status 1 when it is refused or a step fails; the same command continues from there."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--registry", default="", help="such as registry.example.com/modelwright")
    parser.add_argument("--url", default="", help="where people will find the files of dist/VERSION")
    parser.add_argument("--plain-http", action="store_true", help="the registry speaks no TLS")
    parser.add_argument("--dry-run", action="store_true", help="check everything, and say what would be done")
    options = parser.parse_args(arguments)
    try:
        for name, value in (("REGISTRY", options.registry.strip("/")), ("URL", options.url)):
            if not value:
                raise Refused(
                    f"{name} is missing: make release VERSION=1.2.3 REGISTRY=... URL=... SIGN_KEY=release.key"
                )
        sealed = Signing.from_environment(environment)
        if sealed is None:
            raise Refused("SIGN_KEY is missing: a release is signed; docs/how-to/install.md#signed-images makes a key")
        release = Release(
            options.version, options.registry.strip("/"), options.url, sealed, ROOT, plain_http=options.plain_http
        )
        if options.dry_run:
            if not release.state.done:
                check(release)
            print("\n".join(f"{step.name:8} {step.says}" for step in STEPS if step.name not in release.state.done))
            return 0
        play(release)
    except ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{release.version} is in {release.out.relative_to(ROOT)} and tagged: git push --follow-tags publishes the tag"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
