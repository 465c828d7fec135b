"""A shared cache under signatures: pods prove what is in it by what the ModelVersion's status says."""

from typing import Any

import pytest

from modelwright.agents.fetcher.port import ARCHIVE_SUFFIXES
from modelwright.api import names
from modelwright.core import versions
from modelwright.kube import kinds
from modelwright.render.images import VERIFY_CACHE
from tests.lib import objects
from tests.lib.rollout_harness import NS
from tests.lib.signature_harness import GOOD, SignatureHarness, asked

Object = dict[str, Any]
TREE = "sha256:" + "e" * 64
ARCHIVE = "s3://models/v2.tar.gz"
CACHED = {"serving": {"replicas": 1, "cache": {"persistentVolumeClaim": "models"}}}


class Cached(SignatureHarness):
    """Its resolve pods tell the digest of the files when they are asked to, and `trees` is not off."""

    trees = True

    def end(self, pod: Object, report: Object, code: int = 0) -> None:
        wanted = "--tree" in pod["spec"]["containers"][0]["args"]
        super().end(pod, {**report, **({"tree": TREE} if wanted and self.trees else {})}, code)

    def archive(self, name: str = "v9", uri: str = ARCHIVE) -> None:
        self.found[name] = GOOD
        self.api.user_create(objects.version(NS, name, uri=uri))
        self.api.user_patch(kinds.MODEL, NS, "digits", {"spec": {"version": {"name": name}}})

    def fetch(self, name: str = "v9") -> Object | None:
        """The fetch container of the version's pods."""
        for (kind, _, _), obj in self.api.objects.items():
            if kind == kinds.DEPLOYMENT and obj["metadata"]["annotations"][names.ANNOTATION_VERSION_NAME] == name:
                found: Object = obj["spec"]["template"]["spec"]["initContainers"][0]
                return found
        return None


def env(container: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


def test_signed_archive_is_proven_by_the_status() -> None:
    world = Cached(signatures=asked(), endpoint=False, **CACHED)
    world.archive()
    world.settle(12)
    assert world.version("v9")["status"]["artifact"]["tree"] == TREE
    fetch = world.fetch()
    assert fetch is not None
    assert fetch["args"][-2:] == ["--tree", TREE]
    assert env(fetch)[VERIFY_CACHE] == "full"
    assert [arguments[-1] for version, arguments in world.ran if version == "v9"] == ["--tree"], (
        "one pod finds out both"
    )


def test_a_folder_needs_no_other_digest_than_its_own() -> None:
    world = Cached(signatures=asked(), endpoint=False, **CACHED)
    fetch = world.fetch("v1")
    assert fetch is not None
    assert "--tree" not in fetch["args"]
    assert env(fetch)[VERIFY_CACHE] == "full"
    assert "tree" not in world.version("v1")["status"]["artifact"]


@pytest.mark.parametrize("model", [{"signatures": asked()}, CACHED, {}], ids=["no cache", "no signatures", "neither"])
def test_what_is_off_costs_no_look_at_the_files(model: Object) -> None:
    world = Cached(endpoint=False, **model)
    world.archive()
    world.settle(12)
    fetch = world.fetch()
    assert fetch is not None
    assert "--tree" not in fetch["args"]
    assert VERIFY_CACHE not in env(fetch)
    assert not [arguments for _, arguments in world.ran if "--tree" in arguments]


def test_older_status_is_completed_and_keeps_its_signature() -> None:
    world = Cached(signatures=asked(), endpoint=False, **CACHED)
    world.archive()
    world.settle(12)
    old = world.version("v9")
    status = {**old["status"], "artifact": {k: v for k, v in old["status"]["artifact"].items() if k != "tree"}}
    world.api.set_status(old, status)
    world.found.pop("v9")
    world.ran.clear()
    world.restart()
    world.settle(2)
    assert world.version("v9")["status"]["signature"]["verified"] is True, "while its files are looked at"
    assert world.serving == "v9"
    world.found["v9"] = GOOD
    world.settle()
    assert world.version("v9")["status"]["artifact"]["tree"] == TREE
    assert all("--trusted-key" not in arguments for _, arguments in world.ran), "what is verified stays so"
    assert world.version("v9")["status"]["signature"]["verified"] is True


def test_files_that_can_not_be_looked_at_hold_nobody_up() -> None:
    world = Cached(signatures=None, endpoint=False, **CACHED)
    world.ask(asked("Warn"))
    world.settle()
    world.trees = False
    world.archive()
    world.settle(12)
    failure = world.version("v9")["status"]["failure"]
    assert "without the digest of the artifact's files" in failure["message"]
    fetch = world.fetch()
    assert fetch is not None, "its pods bring the artifact again at each start"
    assert "--tree" not in fetch["args"]
    assert env(fetch)[VERIFY_CACHE] == "full"
    runs = len(world.ran)
    world.settle()
    assert len(world.ran) == runs, "and no pod is made again and again"


def test_unpacked_names_match_those_of_the_fetcher() -> None:
    assert set(versions.ARCHIVES) == set(ARCHIVE_SUFFIXES)


@pytest.mark.parametrize(
    ("uri", "digest", "packed"),
    [
        ("s3://models/a.zip", TREE, True),
        ("https://h/a.TGZ?sig=1", TREE, True),
        ("pvc://c/a.tar", TREE, True),
        ("oci://r/a:1", TREE, True),
        ("hf://o/n", "git:" + "a" * 40, True),
        ("hf://o/n", TREE, False),
        ("s3://models/a.onnx", TREE, False),
        ("s3://models/folder", None, False),
        ("https://h/a?x=.zip", TREE, False),
    ],
)
def test_which_digests_say_nothing_of_the_files(uri: str, digest: str | None, packed: bool) -> None:
    artifact = objects.version(NS, "v", uri=uri)["spec"]["artifact"]
    assert versions.is_packed(versions.Artifact.model_validate(artifact), digest) is packed
