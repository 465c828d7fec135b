"""Bad input that only shows with real pods: each is said plainly, naming the field, and what serves goes on serving."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo import platform
from demo.kubectl import Json, conditions
from modelwright.api import names
from tests.e2e.lib.space import MODELS, ROUTES, VERSIONS, Space, eventually
from tests.e2e.lib.store import start_store
from tests.lib.signing import Signer

WRONG_DIGEST = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Case:
    """A version or a way of serving it that can't work, the reason it must be given, and what its message must hold."""

    reason: str
    mentions: tuple[str, ...]
    version: Callable[[Space], Json] | None = None
    serving: Json | None = None
    timeout: float = 120


def corrupt(space: Space) -> Json:
    return space.version("corrupt", uri=space.upload("corrupt/model.json", b'{"behaviour": '))


UNPULLABLE = {"name": "model", "image": "nowhere.invalid/x:1"}


def pod(**spec: Any) -> Json:
    return {"podTemplate": {"spec": spec}}


CASES = {
    "artifact missing": Case(
        "ArtifactNotFound",
        ("s3://models/nothing/here",),
        lambda s: s.version("missing", uri="s3://models/nothing/here"),
    ),
    "bucket missing": Case(
        "ArtifactNotFound", ("s3://no-such-bucket/x",), lambda s: s.version("bucket", uri="s3://no-such-bucket/x")
    ),
    "credentials missing": Case(
        "AccessDenied",
        ("no-such-secret", "credentialsSecretRef"),
        lambda s: s.version("secretless", secret="no-such-secret"),
    ),
    "digest mismatch": Case("DigestMismatch", (WRONG_DIGEST,), lambda s: s.version("mismatch", digest=WRONG_DIGEST)),
    "model file corrupt": Case("ModelLoadFailed", ("is corrupt", "exit code 1"), corrupt),
    "model crashes at load": Case(
        "ModelLoadFailed",
        ("weights do not fit", "exit code 1"),
        lambda s: s.version("crashing", behaviour={"crashAtLoad": "weights do not fit"}),
    ),
    "out of memory": Case(
        "ContainerOOMKilled",
        ("resources.limits.memory",),
        lambda s: s.version("hungry", behaviour={"memoryMebibytes": 512}),
    ),
    "image can't be pulled": Case("ImagePullFailed", ("nowhere.invalid/x:1",), serving=pod(containers=[UNPULLABLE])),
    "resources fit no node": Case(
        "Unschedulable", ("Insufficient cpu",), serving={"resources": {"requests": {"cpu": "1000"}}}
    ),
    "refused by Pod Security": Case("PodsForbidden", ("restricted", "hostNetwork"), serving=pod(hostNetwork=True)),
    "unknown field in podTemplate": Case(
        "InvalidPodTemplate", ("podTemplate", "nodeSelectors"), serving=pod(nodeSelectors={})
    ),
    "version of another Model": Case(
        "VersionOfAnotherModel", ("spec.modelRef", "somebody-else"), lambda s: s.version("foreign", "somebody-else")
    ),
    "no runtime for the format": Case(
        "NoSupportingRuntime", ("spec.artifact.format", "cobol"), lambda s: s.version("cobol", format_name="cobol")
    ),
    "runtime that is not there": Case(
        "WaitingForRuntime", ("spec.serving.runtimeRef", "nobody"), serving={"runtimeRef": {"name": "nobody"}}
    ),
    "version that is not there": Case(
        "WaitingForVersion", ("spec.version", "never"), lambda s: {"metadata": {"name": "never"}}
    ),
}
WAITING = ("WaitingForVersion", "WaitingForRuntime")


@pytest.fixture(scope="module")
def store(shared_space: Space) -> str:
    return start_store(shared_space)


@pytest.fixture(scope="module", autouse=True)
def slow_cases(shared_space: Space, store: str) -> None:
    """Begun first and looked at last: these say what is wrong only after minutes."""
    space = shared_space
    dead = platform.store_secret(space.world.cluster, space.name, "dead-store")
    dead["stringData"]["AWS_ENDPOINT_URL"] = f"http://store.{space.name}.svc.cluster.local:9"
    space.apply(
        dead,
        space.version("down-1", "down", uri="s3://models/x", secret="dead-store"),
        space.version("stall-1", "stall", uri=f"{store}/stall/model.json", secret=None),
        space.version("break-1", "break", uri=f"{store}/break/model.json", secret=None),
        *(space.model(f"{name}-1", name, endpoint=False) for name in ("down", "stall", "break")),
    )


@pytest.fixture(scope="module")
def served(shared_space: Space, slow_cases: None) -> Space:
    space = shared_space
    space.apply(space.version("good"), space.model("good"))
    space.wait_ready("good")
    space.asks("good")
    return space


def serving_uids(space: Space, revision: str) -> set[str]:
    """The pods of the revision; a failed revision of the same version may still have one that is about to go."""
    found = space.pods(version="good")
    return {pod["metadata"]["uid"] for pod in found if pod["metadata"]["labels"][names.LABEL_REVISION] == revision}


@pytest.fixture
def steady(served: Space) -> Iterator[Space]:
    """The Model serves its good version before a test, and again after it has been mended."""
    before = served.wait_ready("good")["status"]["serving"]
    uids = serving_uids(served, before["revision"])
    assert uids
    yield served
    now = served.get(MODELS, "digits")["status"]
    assert now["serving"] == before, "the serving version was touched"
    assert uids <= serving_uids(served, before["revision"]), "a serving pod was replaced"
    assert served.ask() == ("good", [10.0])
    # Mended, it is well again: nothing of the failure sticks.
    served.apply(served.model("good"))
    served.wait_ready("good")
    assert served.get(MODELS, "digits")["status"].get("failure") is None


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_bad_input_is_said_and_harms_nothing(steady: Space, case: Case):
    name = "good"
    if case.version:
        version = case.version(steady)
        name = version["metadata"]["name"]
        if "spec" in version:
            steady.apply(version)
    steady.apply(steady.model(name, **(case.serving or {})))
    condition = "Reconciling" if case.reason in WAITING else "Stalled"
    model = steady.wait_reason(case.reason, *case.mentions, condition=condition, timeout=case.timeout)
    assert conditions(model)["Ready"]["status"] == "False"
    assert conditions(model)["Ready"]["reason"] == case.reason
    assert conditions(model)["Available"]["status"] == "True"
    if condition == "Stalled":
        assert model["status"]["failure"]["reason"] == case.reason


def test_a_version_that_is_not_what_was_signed_never_gets_a_pod(served: Space, tmp_path: Path):
    signer = Signer(tmp_path / "keys")
    content = json.dumps({"version": "signed-1", "behaviour": {}}).encode()
    bundle = signer.folder({"model.json": content})
    for name, body in ("signed-1", content), ("signed-2", content.replace(b"signed-1", b"altered!")):
        served.upload(f"{name}/model.sig", bundle)
        served.apply(served.version(name, "signed", uri=served.upload(f"{name}/model.json", body)))
    asked = {"publicKeys": [{"name": "release", "pem": signer.pem}]}
    for name in "signed-1", "signed-2":
        model = served.model(name, "signed", endpoint=False)
        model["spec"]["signatures"] = asked
        served.apply(model)
        if name == "signed-1":
            served.wait_ready(name, "signed")
    told = served.wait_reason("SignatureInvalid", "signed-2", "model.json", name="signed", condition="Stalled")
    assert told["status"]["serving"]["version"] == "signed-1"
    assert served.pods("signed", version="signed-2") == []
    good, bad = (conditions(served.get(VERSIONS, name))["Verified"] for name in ("signed-1", "signed-2"))
    assert (good["status"], bad["status"]) == ("True", "False")


def test_an_artifact_that_appears_later_is_taken(served: Space):
    served.apply(
        served.version("late-1", "late", uri=f"s3://models/{served.name}/late"),
        served.model("late-1", "late", endpoint=False),
    )
    served.wait_reason("ArtifactNotFound", f"s3://models/{served.name}/late", name="late")
    served.upload("late/model.json", b"{}")
    served.wait_ready("late-1", "late", timeout=180)
    served.delete(MODELS, "late")


def test_a_service_of_that_name_is_left_alone(served: Space):
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken", "namespace": served.name},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    served.apply(theirs)
    before = served.get("services", "taken")
    served.apply(served.version("taken-1", "taken"), served.model("taken-1", "taken"))
    served.wait_reason("NameTaken", "Service", "taken", name="taken")
    assert served.get("services", "taken") == before
    served.delete("services", "taken", wait=True)
    served.wait_ready("taken-1", "taken")
    served.delete(MODELS, "taken")


def test_a_route_conflict_leaves_the_older_model(served: Space):
    rival = served.model("rival-1", "rival")
    rival["spec"]["endpoint"]["hostnames"] = [f"digits.{served.name}.example.com"]
    served.apply(served.version("rival-1", "rival"), rival)
    served.wait_reason("RouteConflict", "digits", f"digits.{served.name}.example.com", name="rival")
    assert served.get(ROUTES, "rival") is None
    served.asks("good")
    rival["spec"]["endpoint"]["hostnames"] = [f"rival.{served.name}.example.com"]
    served.apply(rival)
    served.wait_ready("rival-1", "rival")
    served.asks("rival-1", "rival")
    served.delete(MODELS, "rival")


def test_a_slow_store_is_waited_for(served: Space, store: str):
    served.apply(
        served.version("slow-1", "slow", uri=f"{store}/slow/model.json", secret=None),
        served.model("slow-1", "slow", endpoint=False),
    )
    served.wait_ready("slow-1", "slow", timeout=180)
    served.delete(MODELS, "slow")


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("down", ("StoreUnreachable",)),
        ("stall", ("DownloadStalled",)),
        ("break", ("StoreUnreachable", "DownloadStalled")),
    ],
)
def test_a_store_that_fails_is_named(served: Space, name: str, reasons: tuple[str, ...]):
    def said() -> Json | None:
        found = conditions(served.get(MODELS, name))["Ready"]
        return found if found["reason"] in reasons else None

    found = eventually(said, f"Model {name} says one of {reasons}", timeout=360)
    assert f"store.{served.name}" in found["message"] or f"{name}-1" in found["message"]
    assert not served.pods(name), "no serving pod before the digest is known"
