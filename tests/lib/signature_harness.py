"""ModelVersions with signatures, and resolve pods that report on them, on a simulated cluster."""

import json
from typing import Any

from modelwright.api import names
from modelwright.kube import kinds
from tests.lib import objects
from tests.lib.rollout_harness import NS, RolloutHarness

Object = dict[str, Any]


DIGEST = objects.DIGEST


GOOD = {"reason": "SignatureVerified", "message": "signed by key release", "key": "release"}


MISSING = {"reason": "SignatureMissing", "message": "s3://models/v2 is not signed: it holds no model.sig"}


def key(letter: str, name: str = "release") -> Object:
    return {"name": name, "pem": f"-----BEGIN PUBLIC KEY-----\n{letter * 64}\n-----END PUBLIC KEY-----\n"}


def asked(mode: str = "Enforce", *keys: Object) -> Object:
    return {"mode": mode, "publicKeys": list(keys or [key("A")])}


class SignatureHarness(RolloutHarness):
    """A RolloutHarness whose kubelet runs resolve pods: `found` has their results by version; others run on."""

    def __init__(self, policy: Object | None = None, **more: Any) -> None:
        self.found: dict[str, Object] = {"v1": GOOD}
        self.digests: dict[str, str] = {}
        self.ran: list[tuple[str, list[str]]] = []
        """The pods that ended: version and arguments."""
        super().__init__(policy, **more)

    def look(self, seconds: float = 5) -> None:
        for pod in self.pods_of_resolving():
            version = pod["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME]
            arguments = pod["spec"]["containers"][0]["args"]
            if version not in self.found or pod.get("status"):
                continue
            self.ran.append((version, arguments))
            signature = {"signature": self.found[version]} if "--trusted-key" in arguments else {}
            self.end(pod, {"digest": self.digests.get(version, DIGEST), "sizeBytes": 7, **signature})
        super().look(seconds)

    def end(self, pod: Object, report: Object, code: int = 0) -> None:
        state = {"terminated": {"exitCode": code, "message": json.dumps(report)}}
        self.api.set_status(pod, {"containerStatuses": [{"name": "fetch", "state": state}]})

    def pods_of_resolving(self) -> list[Object]:
        return [o for (kind, _, _), o in self.api.objects.items() if kind == kinds.POD]

    def ask(self, signatures: Object | None) -> None:
        self.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"signatures": signatures}})

    def version(self, name: str) -> Object:
        return self.api.objects[kinds.MODEL_VERSION, NS, name]

    def told(self, obj: Object, type_: str) -> tuple[str, str] | None:
        found = [c for c in obj["status"]["conditions"] if c["type"] == type_]
        return (found[0]["status"], found[0]["reason"]) if found else None

    def settle(self, looks: int = 6) -> None:
        for _ in range(looks):
            self.look()
