"""A namespace of one test (or one file of tests) and what is done in it: models with a behaviour, waiting, asking."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from obstore import put
from obstore.store import S3Store

from demo import platform
from demo.kubectl import Json, Kubectl, condition_line, conditions, is_ready, is_true
from devcluster.cluster import Cluster
from devcluster.load import Target
from devcluster.load.client import v2_body

API = "modelwright.dev/v1alpha1"
MODELS, VERSIONS = "models.modelwright.dev", "modelversions.modelwright.dev"
MODEL_LABEL = "modelwright.dev/model"
CHILDREN = ("deployments.apps", "services", "controllerrevisions.apps", "poddisruptionbudgets.policy")
ROUTES = "httproutes.gateway.networking.k8s.io"
BODY = v2_body([[1.0, 2.0, 3.0, 4.0]])
ANSWER = 10.0


@dataclass(frozen=True)
class ModelwrightCluster:
    """The cluster with Modelwright and the v2-test runtime on it."""

    cluster: Cluster
    kubectl: Kubectl
    images: dict[str, str]

    def operators(self) -> list[Json]:
        """The operator's pods that are ready, the one that leads first."""
        pods = self.kubectl.items("pods", platform.SYSTEM, "app.kubernetes.io/component=operator")
        holder = self.kubectl.run(
            "get", "lease", "modelwright-operator", "-n", platform.SYSTEM, "-o", "jsonpath={.spec.holderIdentity}"
        )
        ready = [
            pod
            for pod in pods
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        ]
        return sorted(ready, key=lambda pod: not holder.startswith(pod["metadata"]["name"] + "_"))


def eventually(check: Callable[[], Any], what: str, *, timeout: float = 60, every: float = 0.5) -> Any:
    """The first true value of ``check``. Fails with ``what`` and the last exception or value after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            last = check()
            if last:
                return last
        except (AssertionError, KeyError, IndexError, httpx.HTTPError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s; last seen: {last!r}")
        time.sleep(every)


@dataclass
class Space:
    """One namespace. Objects are made by ``version`` and ``model`` and applied by ``apply``."""

    world: ModelwrightCluster
    name: str
    gateway: str = platform.GATEWAY
    """The name of the Gateway in namespace gateways that its Models are reached by."""
    seen: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def create(
        cls, world: ModelwrightCluster, prefix: str, level: str = "restricted", gateway: str = platform.GATEWAY
    ) -> Space:
        space = cls(world, f"e2e-{prefix}-{secrets.token_hex(3)}", gateway)
        labels = {"pod-security.kubernetes.io/enforce": level, "modelwright.test/e2e": "true"}
        metadata = {"name": space.name, "labels": labels}
        space.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        space.kubectl.apply(platform.store_secret(world.cluster, space.name))
        return space

    def remove(self) -> None:
        self.kubectl.delete("namespace", self.name)

    @property
    def kubectl(self) -> Kubectl:
        return self.world.kubectl

    def apply(self, *objects: Json) -> None:
        self.kubectl.apply(*objects)

    def get(self, kind: str, name: str) -> Json | None:
        return self.kubectl.get(kind, name, self.name)

    def items(self, kind: str, labels: str | None = None) -> Sequence[Json]:
        return self.kubectl.items(kind, self.name, labels)

    def delete(self, kind: str, name: str, *, wait: bool = False) -> None:
        self.kubectl.delete(kind, name, self.name, wait=wait)

    # Artifacts

    def upload(self, path: str, content: bytes) -> str:
        """Writes ``models/<namespace>/<path>``; returns the address of the folder it is in."""
        s3 = self.world.cluster.s3
        platform.make_bucket(self.world.cluster, platform.BUCKET)
        store = S3Store(
            platform.BUCKET,
            endpoint=s3.endpoint,
            access_key_id=s3.access_key,
            secret_access_key=s3.secret_key,
            region=s3.region,
            client_options={"allow_http": True},
        )
        put(store, f"{self.name}/{path}", content)
        return f"s3://{platform.BUCKET}/{self.name}/{path.rpartition('/')[0]}"

    def artifact(self, version: str, behaviour: Json | None = None) -> str:
        """Writes the artifact of a version; returns its address. ``version`` is in it, so that digests differ."""
        content = {"version": version, "behaviour": behaviour or {}}
        return self.upload(f"{version}/model.json", json.dumps(content).encode())

    # Manifests

    def version(
        self,
        name: str,
        model: str = "digits",
        behaviour: Json | None = None,
        *,
        uri: str | None = None,
        format_name: str = "v2-test",
        secret: str | None = platform.SECRET,
        **artifact: Any,
    ) -> Json:
        """A ModelVersion whose artifact has been written, or is at ``uri``."""
        artifact = {"uri": uri or self.artifact(name, behaviour), "format": {"name": format_name}, **artifact}
        if secret:
            artifact["credentialsSecretRef"] = {"name": secret}
        spec = {"modelRef": {"name": model}, "artifact": artifact}
        return {"apiVersion": API, "kind": "ModelVersion", "metadata": self._metadata(name), "spec": spec}

    def model(self, version: str, name: str = "digits", *, endpoint: bool = True, **serving: Any) -> Json:
        """A Model that serves a version; small and quick to drain unless told otherwise."""
        serving = {"drainSeconds": 3, "maxRequestSeconds": 10, **serving}
        spec: Json = {"version": {"name": version}, "serving": {k: v for k, v in serving.items() if v is not None}}
        if endpoint:
            spec["endpoint"] = {
                "parentRefs": [{"name": self.gateway, "namespace": "gateways"}],
                "hostnames": [f"{name}.{self.name}.example.com"],
            }
        return {"apiVersion": API, "kind": "Model", "metadata": self._metadata(name), "spec": spec}

    def _metadata(self, name: str) -> Json:
        return {"name": name, "namespace": self.name}

    # Waiting

    def wait(
        self, what: str, done: Callable[[Json], bool], *, kind: str = MODELS, name: str = "digits", timeout: float = 120
    ) -> Json:
        """The object once ``done`` is true of it; a failure shows its conditions, pods and events."""
        return self.kubectl.wait(kind, name, self.name, done, what, timeout=timeout)

    def wait_ready(self, version: str, name: str = "digits", timeout: float = 120) -> Json:
        """The Model once it is Ready, at its present generation, and serves this version."""
        return self.wait(
            f"Ready with {version}",
            lambda obj: is_ready(obj) and obj["status"].get("serving", {}).get("version") == version,
            name=name,
            timeout=timeout,
        )

    def wait_reason(
        self,
        reason: str,
        *mentions: str,
        condition: str = "Stalled",
        kind: str = MODELS,
        name: str = "digits",
        timeout: float = 120,
    ) -> Json:
        """The object once this condition is True with this reason; its message must hold every one of ``mentions``."""

        def there(obj: Json) -> bool:
            found = conditions(obj).get(condition, {})
            return is_true(obj, condition) and found.get("reason") == reason

        obj = self.wait(f"{condition} with reason {reason}", there, kind=kind, name=name, timeout=timeout)
        message = conditions(obj)[condition]["message"]
        for mention in mentions:
            assert mention in message, f"{condition_line(conditions(obj)[condition])}\ndoes not mention {mention!r}"
        return obj

    def wait_gone(self, kind: str, name: str, timeout: float = 120) -> None:
        eventually(lambda: self.get(kind, name) is None, f"{kind} {name} is gone", timeout=timeout)

    def set_version(self, version: str, name: str = "digits") -> None:
        self.kubectl.patch(MODELS, name, self.name, {"spec": {"version": {"name": version}}})

    # Children

    def pods(self, model: str = "digits", version: str | None = None) -> list[Json]:
        """Serving pods that are not on their way out."""
        labels = f"{MODEL_LABEL}={model},modelwright.dev/role=serving"
        labels += f",modelwright.dev/version={version}" if version else ""
        return [pod for pod in self.items("pods", labels) if "deletionTimestamp" not in pod["metadata"]]

    def children(self, model: str = "digits") -> dict[str, list[str]]:
        """Names of all children of a Model, by kind."""
        return {
            kind: sorted(obj["metadata"]["name"] for obj in self.items(kind, f"{MODEL_LABEL}={model}"))
            for kind in (*CHILDREN, ROUTES)
        }

    # Asking

    def address(self) -> tuple[str, int]:
        """Host and port of its Gateway."""
        if self.gateway == platform.GATEWAY:
            return platform.gateway(self.world.cluster)
        found = self.kubectl.get("gateways.gateway.networking.k8s.io", self.gateway, "gateways")
        assert found is not None, f"Gateway gateways/{self.gateway} is not there"
        return found["status"]["addresses"][0]["value"], found["spec"]["listeners"][0]["port"]

    def target(self, model: str = "digits") -> Target:
        url = f"http://{model}.{self.name}.example.com/v2/models/{model}/infer"
        return Target(url, BODY, self.address())

    def ask(self, model: str = "digits", timeout: float = 10) -> tuple[str, list[float]]:
        """Version and outputs of one request through the gateway. Raises httpx.HTTPError."""
        host, port = self.address()
        url = httpx.URL(self.target(model).url)
        response = httpx.post(
            url.copy_with(host=host, port=port),
            content=BODY,
            headers={"Host": url.host},
            timeout=timeout,
            trust_env=False,
        )
        response.raise_for_status()
        body = response.json()
        return body["model_version"], body["outputs"][0]["data"]

    def asks(self, version: str, model: str = "digits", timeout: float = 30) -> None:
        """Waits until the gateway's answers come from this version."""
        eventually(lambda: self.ask(model) == (version, [ANSWER]), f"{version} answers for {model}", timeout=timeout)

    # Reports

    def report(self) -> str:
        """All Models and versions of the namespace with conditions, pods and events, and the operator's last words."""
        texts = [
            self.kubectl.explain(obj | {"kind": kind})
            for kind, plural in (("Model", MODELS), ("ModelVersion", VERSIONS))
            for obj in self.items(plural)
        ]
        said = [line for line in platform.operator_log(self.kubectl, 400).splitlines() if self.name in line]
        return "\n\n".join([*texts, "operator's log of this namespace:", "\n".join(said[-25:])])
