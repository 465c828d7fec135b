"""A tenant who means harm: what the cluster role `edit` of a namespace, and a place in the pods' network, allow."""

from __future__ import annotations

import base64
import contextlib
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import httpx
import yaml

from demo.kubectl import Json
from tests.e2e.lib.space import API, Space

NAME = "attacker"
PORTS = (8080, 8081, 8443, 9090)
# A version without a digest has a pod that finds it out: bounded by a quota, and too much for a small host.
NOWHERE: Json = {"uri": "https://example.invalid/m", "digest": "sha256:" + 64 * "0", "format": {"name": "none"}}
HALF = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 7900) for n in range(100))


@dataclass
class Attacker:
    """`answers` counts what the API server said to each attack, by name and status."""

    space: Space
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    @classmethod
    def enter(cls, space: Space) -> Attacker:
        """Give the namespace's ServiceAccount `attacker` the role `edit`."""
        account = {"kind": "ServiceAccount", "name": NAME, "namespace": space.name}
        metadata = {"name": NAME, "namespace": space.name}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
        space.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": role,
                "subjects": [account],
            },
        )
        return cls(space)

    @cached_property
    def _client(self) -> httpx.Client:
        cluster = yaml.safe_load(self.space.kubectl.kubeconfig.read_text())["clusters"][0]["cluster"]
        # Without the administrator's certificate, which would go before the token.
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        token = self.space.kubectl.run("create", "token", NAME, "-n", self.space.name, "--duration=2h").strip()
        headers = {"Authorization": f"Bearer {token}"}
        tls = ssl.create_default_context(cadata=authority)
        return httpx.Client(base_url=cluster["server"], verify=tls, headers=headers, trust_env=False, timeout=30)

    def create(self, attack: str, group: str, plural: str, obj: Json) -> httpx.Response | None:
        """Create an object of the namespace, replacing none; None when the API server did not answer."""
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        with contextlib.suppress(httpx.HTTPError):
            answer = self._client.post(f"{root}/namespaces/{self.space.name}/{plural}", json=obj)
            self.answers[attack, answer.status_code] += 1
            return answer
        return None

    def remove(self, group: str, plural: str) -> None:
        """Delete all objects of a kind that attacks have made, so that they don't fill the API server's disk."""
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        with contextlib.suppress(httpx.HTTPError):
            self._client.delete(
                f"{root}/namespaces/{self.space.name}/{plural}", params={"labelSelector": "by=attacker"}
            )

    def _metadata(self, prefix: str) -> Json:
        return {"name": f"{prefix}-{secrets.token_hex(4)}", "namespace": self.space.name, "labels": {"by": "attacker"}}

    # Attacks: each is done again and again

    def deep_query(self) -> None:
        """Queries that take a parser's time and memory (S1)."""
        deep = "(" * 800 + f'up{{namespace="{self.space.name}"}}' + ")" * 800
        queries = [deep, "-" * 4000 + "up", "(" * 31 + "up" + ")" * 31, " + ".join(["up"] * 580)]
        container = {"name": "c", "image": "busybox"}
        run = {
            "dataset": {"uri": "https://example.com/d"},
            "output": {"uri": "s3://bucket/o", "format": {"name": "sklearn"}},
            "train": {"job": {"template": {"spec": {"containers": [container]}}}},
        }
        for query in queries:
            triggers = [
                {"name": f"t{n}", "prometheus": {"query": query, "above": "1", "interval": "30s"}} for n in range(8)
            ]
            spec = {"modelRef": {"name": "none"}, "triggers": triggers, "run": run}
            policy = {"apiVersion": API, "kind": "RetrainingPolicy", "metadata": self._metadata("deep"), "spec": spec}
            self.create("deep query", API, "retrainingpolicies", policy)

    def large_version(self) -> None:
        """Objects whose parts cost more memory than their text (S2)."""
        for rows, samples in ((29_000, 16), (4_000, 16), (500, 4)):
            sample: Json = {"request": {"a": [[] for _ in range(rows)]}}
            spec = {"modelRef": {"name": "none"}, "artifact": NOWHERE, "samples": [sample] * samples}
            version = {"apiVersion": API, "kind": "ModelVersion", "metadata": self._metadata("large"), "spec": spec}
            self.create("large version", API, "modelversions", version)

    def half_requests(self) -> None:
        """Requests whose head doesn't end, to every port of every replica (S3)."""
        sockets = []
        for pod in self.space.world.operators():
            for port in PORTS:
                with contextlib.suppress(OSError):
                    for _ in range(150):
                        connection = socket.create_connection((pod["status"]["podIP"], port), timeout=1)
                        sockets.append(connection)
                        connection.sendall(HALF)
        for connection in sockets:
            connection.close()

    def forged_pod(self) -> None:
        """Pods with Modelwright's labels and owners (S4, S5)."""
        for role in ("serving", "comparer", "resolve", "gate", "look"):
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": self._metadata("forged")
                | {"labels": {"by": "attacker", "modelwright.dev/model": "good", "modelwright.dev/role": role}},
                "spec": {
                    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                    "nodeSelector": {"no": "node"},
                    "containers": [
                        {
                            "name": "model",
                            "image": "busybox",
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                },
            }
            self.create("forged pod", "v1", "pods", pod)

    def many_objects(self) -> None:
        """Small objects, one after another."""
        for _ in range(20):
            spec = {"modelRef": {"name": "none"}, "artifact": NOWHERE}
            version = {"apiVersion": API, "kind": "ModelVersion", "metadata": self._metadata("small"), "spec": spec}
            self.create("small version", API, "modelversions", version)

    def tidy(self) -> None:
        """Make room, so that attacks can go on for long."""
        for group, plural in ((API, "retrainingpolicies"), (API, "modelversions"), ("v1", "pods")):
            self.remove(group, plural)

    @property
    def attacks(self) -> list[Callable[[], None]]:
        return [self.deep_query, self.large_version, self.half_requests, self.forged_pod, self.many_objects, self.tidy]
