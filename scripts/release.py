"""Makes a release with one command: `make release VERSION=1.2.3 REGISTRY=... URL=... SIGN_KEY=release.key`.

`STEPS` lists what it does. What a step has made is recorded in dist/VERSION/release.json: a run that was interrupted
goes on from there when it is started again on the same commit.
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
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from scripts import changelog, plugin, signing
from scripts.registry import Image, Registry, RegistryError, find_login

ROOT = Path(__file__).resolve().parent.parent
SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
)
"""Without build metadata: tags of images can't hold a plus sign."""
VERSIONED = ("charts/*/Chart.yaml", "manifests/install/**/*.yaml", "docs/how-to/*.md")
"""Files beside pyproject.toml that name the version."""


class Refused(Exception):
    """There will be no release; the text says why, and what to do."""


@dataclass
class State:
    """What a release has made so far: dist/VERSION/release.json."""

    version: str
    commit: str = ""
    done: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file beside release.json, by name."""


@dataclass
class Release:
    """One release: what was asked for, and where it stands."""

    version: str
    place: str
    """Where images and charts go: a registry with a path."""
    url: str
    """Where people will find the files."""
    signer: CryptoSigner
    root: Path = ROOT
    day: date = field(default_factory=lambda: datetime.now(UTC).date())
    plain_http: bool = False
    state: State = field(init=False)

    def __post_init__(self) -> None:
        self.state = State(self.version)
        if self._record.exists():
            known = State(**json.loads(self._record.read_text()))
            if known.commit == git(self.root, "rev-parse", "HEAD"):
                self.state = known

    @property
    def out(self) -> Path:
        return self.root / "dist" / self.version

    @property
    def _record(self) -> Path:
        return self.out / "release.json"

    @property
    def changelog(self) -> Path:
        return self.root / "CHANGELOG.md"

    def registry(self, name: str, digest: str = "") -> tuple[Registry, Image]:
        """A client of the repository `name` at the place, and the image with this digest there."""
        host, _, path = self.place.partition("/")
        image = Image(host, f"{path}/{name}".lstrip("/"), digest)
        return Registry(image, find_login(image), plain_http=self.plain_http), image

    def keep(self, *files: Path) -> None:
        """Record files that people get."""
        for file in files:
            self.state.files[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self._record.write_text(json.dumps(asdict(self.state), indent=2) + "\n")


@dataclass(frozen=True)
class Step:
    """One thing that a release does. Doing it twice is the same as doing it once."""

    name: str
    says: str
    run: Callable[[Release], None]


def git(root: Path, *arguments: str) -> str:
    """What git says, without space at its ends. Raises Refused."""
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
    """Write the version into all files that name it; returns those that have changed."""
    project = root / "pyproject.toml"
    old = re.search(r'^version = "(.+)"$', project.read_text(), re.MULTILINE)
    if old is None:
        raise Refused('pyproject.toml has no line `version = "..."`')
    places = {project: rf'(?m)^(version = "){re.escape(old[1])}(?=")'}
    # Another version may begin or end with this one.
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


def write_notes(release: Release) -> None:
    notes = release.out / "RELEASE_NOTES.md"
    notes.write_text(notes_of(release))
    release.keep(notes)


def notes_of(release: Release) -> str:
    """What people read of the release: the changelog's section, and what was made."""
    entries = changelog.section(release.changelog.read_text(), release.version)
    files = "".join(
        f"| [{name}]({release.url.rstrip('/')}/{name}) | `{digest}` |\n"
        for name, digest in sorted(release.state.files.items())
        if name != "RELEASE_NOTES.md"
    )
    return f"# Modelwright {release.version}\n\n{entries}\n## Files\n\n| file | SHA-256 |\n|---|---|\n{files}"


def sign_files(release: Release) -> None:
    """All files with their SHA-256, as `sha256sum --check` reads them, and the list's signature as cosign writes it."""
    sums = release.out / "SHA256SUMS"
    sums.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(release.state.files.items())))
    (release.out / "SHA256SUMS.sig").write_text(signing.sign_blob(release.signer, sums.read_bytes()) + "\n")


STEPS: Sequence[Step] = (
    Step(
        "version", "move Unreleased of CHANGELOG.md to the version, write it into all files, commit, tag", write_version
    ),
    Step("wheel", "build the wheel", build_wheel),
    Step("plugin", "pack kubectl-modelwright for each platform, with the manifest for krew", pack_plugin),
    Step("notes", "write RELEASE_NOTES.md", write_notes),
    Step("sums", "write SHA256SUMS and sign it", sign_files),
)


def play(release: Release, steps: Sequence[Step] = STEPS, say: Callable[[str], None] = print) -> None:
    """Do what is left of the steps, recording each."""
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
    """Exit status 1 when it is refused or a step fails; the same command goes on from there."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--registry", default="", help="such as registry.example.com/modelwright")
    parser.add_argument("--url", default="", help="where people will find the files of dist/VERSION")
    parser.add_argument("--plain-http", action="store_true", help="the registry speaks no TLS")
    parser.add_argument("--dry-run", action="store_true", help="check everything, and say what would be done")
    given = parser.parse_args(arguments)
    try:
        for name, value in (("REGISTRY", given.registry.strip("/")), ("URL", given.url)):
            if not value:
                raise Refused(
                    f"{name} is missing: make release VERSION=1.2.3 REGISTRY=... URL=... SIGN_KEY=release.key"
                )
        if not environment.get("SIGN_KEY"):
            raise Refused("SIGN_KEY is missing: a release is signed; docs/how-to/install.md#signed-images makes a key")
        signer = signing.private_key(Path(environment["SIGN_KEY"]), environment.get("SIGN_PASSWORD", ""))
        release = Release(
            given.version, given.registry.strip("/"), given.url, signer, ROOT, plain_http=given.plain_http
        )
        if given.dry_run:
            if not release.state.done:
                check(release)
            print("\n".join(f"{step.name:8} {step.says}" for step in STEPS if step.name not in release.state.done))
            return 0
        play(release)
    except (Refused, RegistryError, changelog.NoSection, signing.BadKey) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{release.version} is in {release.out.relative_to(ROOT)} and tagged: git push --follow-tags publishes the tag"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
