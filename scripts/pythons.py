"""Tests the other supported versions of Python, where they are installed: `make test-pythons`.

For each: requirements/dev.txt is installed and the unit tests run; the plugin's archive for this machine is
packed as for a release, and started without other packages.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts import plugin

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.12", "3.13")
"""Beside 3.11, which runs everything else."""
TESTS = ("-m", "not (controlplane or kwok or e2e or chart or fetch or metrics)", "tests/unit")
_MODEL = "apiVersion: modelwright.dev/v1alpha1\nkind: Model\nmetadata: {name: digits}\nspec: {version: {name: one}}\n"


def find(version: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Find a working interpreter of the version, on the PATH or among those of pyenv; None when there is none."""
    pyenv = Path(environment.get("PYENV_ROOT") or Path(environment.get("HOME", "/")) / ".pyenv")
    on_path = shutil.which(f"python{version}", path=environment.get("PATH", ""))
    candidates = [*([Path(on_path)] if on_path else []), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def try_plugin(python: Path, archive: Path, folder: Path) -> None:
    """Start the plugin from its archive, as krew unpacks it. Raises CalledProcessError."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (folder / "python3").symlink_to(python)
    (folder / "model.yaml").write_text(_MODEL)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}
    for arguments in (["--help"], ["lint", "--offline", "model.yaml"]):
        subprocess.run(
            [folder / "kubectl-modelwright", *arguments],
            check=True,
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
        )


def try_development(python: Path, folder: Path, tests: Sequence[str]) -> None:
    """Install the development requirements, and run the unit tests. Raises CalledProcessError."""
    environment = folder / "venv"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", python, environment], check=True)
    command = [
        *uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        environment / "bin/python",
        "--no-deps",
        "--require-hashes",
    ]
    subprocess.run([*command, "-r", ROOT / "requirements/dev.txt"], check=True)
    pytest = [
        environment / "bin/python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "2",
        "--dist",
        "loadfile",
    ]
    # The long matrices don't depend on the version.
    usual = {key: value for key, value in os.environ.items() if key != "MODELWRIGHT_FULL_MATRIX"}
    subprocess.run([*pytest, *tests], check=True, cwd=ROOT, env=usual)


def main(tests: Sequence[str]) -> int:
    """Test each version. Exit status 1 when one fails; a missing version is reported as skipped."""
    failed = 0
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    with TemporaryDirectory() as place:
        archive = Path(place) / "plugin.tar.gz"
        for version in VERSIONS:
            python = find(version)
            if python is None:
                print(f"    Python {version}: skipped, there is none on this machine", flush=True)
                continue
            folder = Path(place) / f"python-{version}"
            folder.mkdir()
            try:
                if not archive.exists():
                    libraries = Path(place) / "libraries"
                    libraries.mkdir()
                    plugin.pack(plugin.fetched(f"linux/{machine}", libraries), archive)
                try_plugin(python, archive, folder)
                print(f"    Python {version}: the plugin runs", flush=True)
                try_development(python, folder, tests or TESTS)
                print(f"    Python {version}: the unit tests pass", flush=True)
            except subprocess.CalledProcessError as error:
                print(f"    Python {version}: FAILED, {error}", file=sys.stderr, flush=True)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
