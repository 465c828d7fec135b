"""How the plugin asks and writes: through the user's own kubectl, and so with their rights, context and proxies."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.api.names import GROUP
from modelwright.core import snapshots

Json = dict[str, Any]

NEEDED = ("models", "modelversions", "modelrollouts")
"""Kinds that nothing can be said without; roles that only approve or command have them too."""
KINDS = (*NEEDED, "retrainingpolicies", "trainingruns")
TIMEOUT = 60.0
_BEFORE_THE_REASON = re.compile(r'^(error: |Error from server( \(\w+\))?: )?(error when \w+ "STDIN": )?')


class ClusterError(Exception):
    """kubectl could not do it; the text is what it said."""


class Forbidden(ClusterError):
    """The API server lets this user not do it."""


@dataclass(frozen=True)
class Cluster:
    """One namespace as its user sees it. `flags` are those of kubectl: context, kubeconfig, namespace."""

    flags: Sequence[str] = ()

    def objects(self, *more: str) -> list[Json]:
        """All that `picture` is made of: our kinds, and the pods of models. What the user may not see is left out, but
        for what is needed and `more`: then Forbidden is raised."""
        needed = (*NEEDED, *more)
        try:
            found = self._items(_listed(KINDS))
        except Forbidden:
            found = self._items(_listed(needed))
            for kind in (kind for kind in KINDS if kind not in needed):
                found += self._items_if_allowed(_listed([kind]))
        return found + self._items_if_allowed("pods", "-l", f"{GROUP}/model")

    def names(self, kind: str) -> list[str]:
        """Names of all objects of one of our kinds."""
        return self.run("get", f"{kind}.{GROUP}", "-o", "jsonpath={.items[*].metadata.name}").split()

    def stored_policy(self, name: str) -> Json | None:
        """The policy in the ControllerRevision of this name; None when it is not there, or this user may not see it."""
        try:
            found = json.loads(self.run("get", "controllerrevisions.apps", name, "-o", "json"))
        except ClusterError:
            return None
        return snapshots.spec_in(found, name)

    def whoami(self) -> str:
        """The user's name as the API server knows it, which is what admission compares with."""
        return self.run("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").strip()

    def patch(self, kind: str, name: str, change: Json) -> None:
        """A JSON merge patch."""
        self.run("patch", f"{kind}.{GROUP}", name, "--type=merge", "-p", json.dumps(change))

    def create(self, body: Json) -> str:
        """The name of what was made."""
        return self.run("create", "-f", "-", "-o", "jsonpath={.metadata.name}", stdin=json.dumps(body)).strip()

    def dry_run(self, body: Mapping[str, Any]) -> str | None:
        """Why the API server would refuse an object; None when it would not."""
        try:
            if not body["metadata"].get("name"):
                self.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))
                return None
            self.run(
                "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", stdin=json.dumps(body)
            )
        except ClusterError as error:
            return str(error)
        return None

    def _items(self, *arguments: str) -> list[Json]:
        found: list[Json] = json.loads(self.run("get", *arguments, "-o", "json"))["items"]
        return found

    def _items_if_allowed(self, *arguments: str) -> list[Json]:
        try:
            return self._items(*arguments)
        except Forbidden:
            return []

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output of a kubectl command. Raises ClusterError."""
        program = os.environ.get("KUBECTL") or shutil.which("kubectl")
        if program is None:
            raise ClusterError("kubectl is not on the PATH: this plugin asks the cluster through it")
        try:
            done = subprocess.run(
                [program, *self.flags, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClusterError(f"kubectl {' '.join(arguments[:3])}: {error}") from error
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            kind = Forbidden if "forbidden" in said.lower() else ClusterError
            raise kind(_BEFORE_THE_REASON.sub("", said) or f"kubectl {arguments[0]} ended with {done.returncode}")
        return done.stdout


def _listed(kinds: Iterable[str]) -> str:
    return ",".join(f"{kind}.{GROUP}" for kind in kinds)
