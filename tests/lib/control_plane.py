"""A control plane that tests share, and what they apply to it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from devcluster import ControlPlane
from modelwright.reconcile.admission_check import build_forgeries

ROOT = Path(__file__).parents[2]


class Server:
    """An API server that knows Modelwright's kinds, as users see it: through kubectl."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def run(self, *arguments: str, objects: Any = None, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl's answer; `objects` (one or a list) are its input, `user` is who asks (default: an administrator)."""
        command = [str(self.plane.kubectl), "--kubeconfig", str(self.plane.kubeconfig), *arguments]
        if user is not None:
            command += ["--as", user, "--as-group", "system:authenticated"]
        many = objects if isinstance(objects, list) else [objects]
        text = None if objects is None else yaml.safe_dump_all(many)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)

    def ok(self, *arguments: str, objects: Any = None, user: str | None = None) -> str:
        """kubectl's output; fails the test when kubectl does."""
        answer = self.run(*arguments, objects=objects, user=user)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """One object as it is stored."""
        found: dict[str, Any] = json.loads(self.ok("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def wait_for_policies(self, seconds: float = 30) -> None:
        """Come back once every policy refuses what it must: that takes a moment after it was written."""
        end = time.monotonic() + seconds
        for obj, refusal in build_forgeries("default"):
            while refusal not in (said := self.run("create", "--dry-run=server", "-f", "-", objects=obj).stderr):
                assert time.monotonic() < end, f"{obj['kind']}: {said or 'accepted'}"

    def delete(self, obj: Mapping[str, Any]) -> None:
        """Delete `obj` if it is there."""
        self.ok("delete", "--ignore-not-found", "--wait=true", "-f", "-", objects=dict(obj))


@contextlib.contextmanager
def served() -> Iterator[Server]:
    """Another one, for tests that change what is installed."""
    with ControlPlane() as plane:
        server = Server(plane)
        server.ok("apply", "-k", str(ROOT / "crds"))
        server.ok("apply", "-k", str(ROOT / "manifests/policies"))
        server.ok("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
        server.wait_for_policies()
        yield server
