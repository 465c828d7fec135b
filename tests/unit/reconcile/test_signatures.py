"""Models that ask for signatures: an unsigned version never begins to serve, and what serves goes on."""

import pytest

from modelwright.api import names
from modelwright.kube import api_errors, kinds
from tests.lib import objects
from tests.lib.rollout_harness import NS
from tests.lib.signature_harness import DIGEST, GOOD, MISSING, Object, SignatureHarness, asked, key

ALTERED = {"reason": "SignatureInvalid", "message": "The artifact is not what key release has signed: model.bin"}


def test_what_a_pod_has_found_out_is_written_before_the_pod_goes() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    refused = []

    def refuse_once(verb: str, obj: Object) -> None:
        if verb == "status" and obj["metadata"]["name"] == "v9" and "artifact" in obj["status"] and not refused:
            refused.append(obj)
            raise api_errors.Conflict(409, "Conflict", "the object has been modified")

    world.found["v9"] = GOOD
    world.api.before_write = refuse_once
    world.api.user_create(objects.version(NS, "v9", digest=None))
    world.settle()
    assert refused
    assert world.version("v9")["status"]["artifact"]["digest"] == DIGEST
    assert [version for version, _ in world.ran].count("v9") == 1, "no pod has to find it out again"
    assert "v9" not in {p["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME] for p in world.pods_of_resolving()}


def test_a_signed_version_serves_and_says_so() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    version = world.version("v1")
    assert world.told(version, "Verified") == ("True", "SignatureVerified")
    assert world.told(version, "Ready") == ("True", "DigestPinned")
    assert version["status"]["signature"]["digest"] == DIGEST
    arguments = next(arguments for of, arguments in world.ran if of == "v1")
    assert arguments[3:5] == ["--digest", DIGEST]
    assert arguments[5:] == ["--trusted-key", f"release={key('A')['pem']}"]
    assert "v1" not in {p["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME] for p in world.pods_of_resolving()}


@pytest.mark.parametrize("bad", [ALTERED, MISSING], ids=["altered", "unsigned"])
def test_a_bad_version_is_refused_before_anything_of_it_is_made(bad: Object) -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    before = world.model["status"]["serving"]
    world.found["v2"] = bad
    world.want("v2")
    world.go(lambda: world.told(world.model, "Stalled") == ("True", bad["reason"]))
    world.settle()
    assert world.model["status"]["serving"] == before
    assert bad["message"] in world.model["status"]["failure"]["message"]
    assert "ModelVersion v2" in world.model["status"]["failure"]["message"]
    assert world.pods("v2") is None
    assert world.told(world.version("v2"), "Verified") == ("False", bad["reason"])
    assert world.told(world.version("v2"), "Stalled") == ("True", bad["reason"])
    assert world.version("v2")["status"]["artifact"]["digest"] == DIGEST
    world.want("v1")
    world.go(lambda: world.told(world.model, "Ready") == ("True", "Serving"))


def test_nothing_moves_while_the_signature_is_being_verified() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    world.want("v2")
    world.settle()
    assert world.told(world.model, "Reconciling") == ("True", "WaitingForSignature")
    assert world.told(world.version("v2"), "Verified") == ("Unknown", "WaitingForSignature")
    assert world.pods("v2") is None
    world.found["v2"] = GOOD
    world.go(lambda: world.serving == "v2")


def test_a_store_that_does_not_answer_is_told_and_waited_for() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    world.want("v2")
    world.settle()
    (pod,) = (p for p in world.pods_of_resolving() if "v2" in p["metadata"]["name"])
    world.end(pod, {"reason": "StoreUnreachable", "message": "no connection"}, 1)
    world.go(lambda: world.told(world.model, "Stalled") == ("True", "StoreUnreachable"))
    assert world.told(world.version("v2"), "Verified") == ("Unknown", "WaitingForSignature")
    world.end(pod, {"digest": DIGEST, "sizeBytes": 7, "signature": GOOD})
    world.go(lambda: world.serving == "v2")


def test_a_report_without_a_word_on_the_signature_is_no_verdict() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    world.found["v2"] = {"reason": "SignatureVerified", "message": "", "key": "nobody's"}
    world.want("v2")
    world.go(lambda: world.told(world.model, "Stalled") == ("True", "InternalError"))
    assert world.pods("v2") is None


def test_warn_lets_it_serve_and_says_so_once() -> None:
    world = SignatureHarness(signatures=asked("Warn"), endpoint=False)
    world.found["v2"] = ALTERED
    world.want("v2")
    world.go(lambda: world.serving == "v2")
    world.settle()
    assert world.told(world.version("v2"), "Verified") == ("False", "SignatureInvalid")
    assert world.told(world.version("v2"), "Ready") == ("True", "DigestPinned")
    assert world.told(world.model, "Ready") == ("True", "Serving")
    assert [e for e in world.operator.events.told if e[0] == "v2"] == [("v2", "Warning", "SignatureInvalid")]
    world.ask(asked("Enforce"))
    world.go(lambda: world.told(world.version("v2"), "Stalled") == ("True", "SignatureInvalid"))
    world.settle()
    assert world.told(world.model, "Ready") == ("True", "Serving"), "what serves goes on serving"


def test_asking_later_takes_nothing_from_what_serves() -> None:
    world = SignatureHarness(endpoint=False)
    assert world.told(world.version("v1"), "Verified") is None
    deployment = next(o for (kind, _, _), o in world.api.objects.items() if kind == kinds.DEPLOYMENT)
    world.found["v1"] = MISSING
    world.ask(asked())
    world.go(lambda: world.told(world.version("v1"), "Verified") == ("False", "SignatureMissing"))
    world.settle()
    assert world.told(world.model, "Ready") == ("True", "Serving")
    world.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"serving": {"replicas": 2}}})
    world.go(lambda: world.pods("v1") == 2)
    after = next(o for (kind, _, _), o in world.api.objects.items() if kind == kinds.DEPLOYMENT)
    assert after["spec"]["template"] == deployment["spec"]["template"]
    world.ask(None)
    world.go(lambda: world.told(world.version("v1"), "Verified") is None)
    assert "signature" not in world.version("v1")["status"]


def test_changed_keys_are_verified_only_where_they_matter() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    world.found |= {"v2": ALTERED, "v3": GOOD}
    world.go(lambda: {of for of, _ in world.ran} == {"v1", "v2", "v3"})
    world.settle()
    world.ran.clear()
    world.ask(asked("Enforce", key("A"), key("B", "next")))
    world.settle()
    assert [of for of, _ in world.ran] == ["v2"], "who was signed by a key that is still trusted stays verified"
    world.ran.clear()
    world.found = dict.fromkeys(("v1", "v2", "v3"), MISSING)
    world.ask(asked("Enforce", key("B", "next")))
    world.go(lambda: world.told(world.version("v3"), "Verified") == ("False", "SignatureMissing"))
    assert sorted(of for of, _ in world.ran) == ["v1", "v2", "v3"]
    world.want("v3")
    world.go(lambda: world.told(world.model, "Stalled") == ("True", "SignatureMissing"))
    assert world.serving == "v1"


def test_a_rollout_whose_key_is_taken_out_holds_where_it_is() -> None:
    steps = [{"weight": 25, "hold": "10m"}, {"weight": 100}]
    world = SignatureHarness({"strategy": {"steps": steps}, "deadline": "2h"}, signatures=asked())
    world.found["v2"] = GOOD
    world.want("v2")
    world.go(lambda: world.weights == {"v1": 75, "v2": 25})
    world.found["v2"] = MISSING
    world.ask(asked("Enforce", key("B", "next")))
    world.go(lambda: world.told(world.model, "Stalled") == ("True", "SignatureMissing"))
    world.settle(200)
    assert world.weights == {"v1": 75, "v2": 25}
    assert world.record["state"] == "Holding"
    world.want("v1")
    world.go(lambda: world.weights == {"v1": 100})


def test_a_pod_that_asks_for_keys_of_before_is_replaced() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    world.settle()
    world.ask(asked("Enforce", key("A"), key("B", "next")))
    world.settle()
    for pod in world.pods_of_resolving():
        assert sum(part == "--trusted-key" for part in pod["spec"]["containers"][0]["args"]) == 2
    world.found["v2"] = GOOD
    world.want("v2")
    world.go(lambda: world.serving == "v2")


def test_a_digest_that_is_not_known_is_found_out_by_the_same_pod() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    world.api.user_create(objects.version(NS, "v4", digest=None))
    world.digests["v4"] = "sha256:" + "4" * 64
    world.found["v4"] = GOOD
    world.want("v4")
    world.go(lambda: world.serving == "v4")
    assert [arguments[3] for of, arguments in world.ran if of == "v4"] == ["--trusted-key"]
    assert world.version("v4")["status"]["artifact"]["digest"] == "sha256:" + "4" * 64


def test_a_commit_is_pinned_by_its_files() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    world.api.user_create(objects.version(NS, "v4", digest=None, uri=f"hf://org/digits@{'c' * 40}"))
    world.digests["v4"] = "sha256:" + "4" * 64
    world.want("v4")
    world.settle()
    assert world.told(world.model, "Reconciling") == ("True", "WaitingForDigest")
    world.found["v4"] = GOOD
    world.go(lambda: world.serving == "v4")
    assert world.version("v4")["status"]["artifact"]["digest"] == "sha256:" + "4" * 64


def test_a_commit_as_its_authors_digest_is_refused_in_words() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    world.api.user_create(objects.version(NS, "v4", digest="git:" + "c" * 40, uri="hf://org/digits"))
    world.want("v4")
    world.go(lambda: world.told(world.model, "Stalled") == ("True", "SignatureInvalid"))
    assert "spec.artifact.digest" in world.model["status"]["failure"]["message"]
    assert not [of for of, _ in world.ran if of == "v4"]


def test_a_restart_on_a_settled_world_writes_nothing() -> None:
    world = SignatureHarness(signatures=asked(), endpoint=False)
    world.found |= {"v2": ALTERED, "v3": MISSING}
    world.go(lambda: {of for of, _ in world.ran} == {"v1", "v2", "v3"})
    world.settle()
    count = len(world.api.writes)
    world.restart()
    world.settle()
    assert world.api.writes[count:] == []
