"""Features of single stores: tags and indexes, commits and gates, prefixes and markers, links on a claim."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from scripts import samples
from tests.fetch.harness import Container, folder_digest, random_bytes, sha256, tree
from tests.fetch.stores import S3, Az, Gs, Hf, Oci
from tests.lib.fetch_processes import started
from tests.servers.http_faults import FaultServer, Page
from tests.servers.threaded import ThreadedServer

pytestmark = pytest.mark.fetch

TITLE = "org.opencontainers.image.title"


def _tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


def _refused_to_verify(container: Container, uri: str) -> str:
    """Why no signature of the artifact can be valid, whoever has signed."""
    signature = container.run("resolve", "--uri", uri, "--trusted-key", "release=any").message["signature"]
    assert signature["reason"] == "SignatureInvalid"
    return str(signature["message"])


class TestRegistry:
    @pytest.fixture
    def oci(self, container: Container) -> Oci:
        store = started(Oci)
        container.give(store.secret(store.url))
        return store

    def test_moved_tag_does_not_change_the_pinned_content(self, oci: Oci, container: Container) -> None:
        first = oci.layers("models/moving", [("application/octet-stream", b"one", {TITLE: "m.bin"})], "v1")
        second = oci.layers("models/moving", [("application/octet-stream", b"two", {TITLE: "m.bin"})], "v1")
        uri = oci.uri("moving") + ":v1"
        assert container.resolve(uri).message["digest"] == second
        assert container.get(uri, first).code == 0
        assert tree(container.dest) == {"m.bin": b"one"}

    def test_the_quickstarts_samples_are_pushed_and_fetched(
        self, oci: Oci, container: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        secret = oci.secret(oci.url)
        (tmp_path / "config.json").write_text(secret[".dockerconfigjson"])
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "config.json"))
        versions = samples.train()
        host = oci.url.removeprefix("http://")
        pushed = samples.push(f"{host}/modelwright", versions, plain_http=True)
        assert pushed == [f"{host}/modelwright/iris:{tag}" for tag in ("1", "2", "3")]
        digest = container.resolve(f"oci://{pushed[1]}").message["digest"]
        assert container.get(f"oci://{pushed[1]}", digest).code == 0
        assert tree(container.dest) == {"model.joblib": versions["2"]}

    def test_a_digest_in_the_uri_must_be_the_pinned_one(self, oci: Oci, container: Container) -> None:
        first = oci.layers("models/two", [("application/octet-stream", b"one", {TITLE: "m.bin"})])
        second = oci.layers("models/two", [("application/octet-stream", b"two", {TITLE: "m.bin"})])
        outcome = container.get(f"{oci.uri('two')}@{first}", second)
        assert outcome.reason == "DigestMismatch"
        assert first in outcome.message["message"]

    def test_oras_folders_and_image_layers_are_unpacked(self, oci: Oci, container: Container) -> None:
        layers = [
            ("application/vnd.oci.image.layer.v1.tar+gzip", _tar({"models/a.bin": b"a", "gone": b"x"}, "w:gz"), {}),
            ("application/vnd.oci.image.layer.v1.tar", _tar({"models/b.bin": b"b", ".wh.gone": b""}), {}),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                _tar({"folder/c": b"c"}, "w:gz"),
                {TITLE: "folder", "io.deis.oras.content.unpack": "true"},
            ),
            ("application/vnd.oci.image.layer.v1.tar", b"plain, by an old oras", {TITLE: "d.bin"}),
            ("application/vnd.cncf.model.weight.v1.raw", b"e", {"org.cncf.model.filepath": "e/w.bin"}),
        ]
        digest = oci.layers("models/layers", layers)
        assert container.get(oci.uri("layers"), digest).code == 0
        assert tree(container.dest) == {
            "models/a.bin": b"a",
            "models/b.bin": b"b",
            "folder/c": b"c",
            "d.bin": b"plain, by an old oras",
            "e/w.bin": b"e",
        }
        assert "packed in layers" in _refused_to_verify(container, oci.uri("layers"))

    def test_an_archive_that_is_all_there_is_comes_unpacked(self, oci: Oci, container: Container) -> None:
        body = _tar({"m/x": b"x"}, "w:gz")
        digest = oci.layers("models/packed", [("application/octet-stream", body, {TITLE: "m.tar.gz"})])
        assert container.get(oci.uri("packed"), digest).code == 0
        assert tree(container.dest) == {"m/x": b"x"}

    def test_the_manifest_for_this_machine_is_taken_from_an_index(self, oci: Oci, container: Container) -> None:
        machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        entries = []
        for name in ("s390x", machine):
            layer = ("application/octet-stream", name.encode(), {TITLE: "m.bin"})
            digest = oci.layers("models/index", [layer], f"for-{name}")
            with oci._send("GET", f"{oci.url}/v2/models/index/manifests/{digest}") as answer:
                size = len(answer.read())
            kind = "application/vnd.oci.image.manifest.v1+json"
            platform = {"os": "linux", "architecture": name}
            entries.append({"mediaType": kind, "digest": digest, "size": size, "platform": platform})
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
        digest = oci.manifest("models/index", index)
        assert container.resolve(oci.uri("index")).message["digest"] == digest
        assert container.get(oci.uri("index"), digest).code == 0
        assert tree(container.dest) == {"m.bin": machine.encode()}
        assert "another architecture" in _refused_to_verify(container, oci.uri("index"))

    @pytest.mark.parametrize("title", ["../evil", "/evil", "a/../../evil"])
    def test_a_title_that_leads_out_is_refused(self, oci: Oci, container: Container, title: str) -> None:
        digest = oci.layers("models/evil", [("application/octet-stream", b"x", {TITLE: title})])
        assert container.get(oci.uri("evil"), digest).reason == "UnsafeArchive"
        assert tree(container.folder / "models") == {}

    def test_resolve_reads_no_layer(self, oci: Oci, container: Container) -> None:
        body = random_bytes(100_000, 77)
        digest = oci.layers("models/lost", [("application/octet-stream", body, {TITLE: "m.bin"})])
        for blob in (oci.folder / "data").rglob(sha256(body).removeprefix("sha256:") + "/data"):
            blob.write_bytes(b"damaged")
        outcome = container.resolve(oci.uri("lost"))
        assert (outcome.message["digest"], outcome.message["sizeBytes"]) == (digest, len(body))
        assert container.get(oci.uri("lost"), digest).code == 1

    def test_plain_http_needs_its_setting(self, oci: Oci, container: Container) -> None:
        container.give({".dockerconfigjson": oci.secret(oci.url)[".dockerconfigjson"]})
        assert container.resolve(oci.uri("moving")).reason == "StoreUnreachable"

    def test_a_docker_configuration_that_is_none_is_named(self, oci: Oci, container: Container) -> None:
        container.give({".dockerconfigjson": "Canary, not JSON", "REGISTRY_INSECURE": "true"})
        outcome = container.resolve(oci.uri("moving"))
        assert outcome.reason == "AccessDenied"
        assert ".dockerconfigjson" in outcome.message["message"]
        assert "Canary" not in outcome.text


class _TokenRegistry(ThreadedServer):
    """A registry that wants bearer tokens, each good for three requests."""

    body = random_bytes(1_000_000, 8)

    def routes(self, app: web.Application) -> None:
        self.tokens: dict[str, int] = {}
        self.scopes: list[str] = []
        app.router.add_get("/token", self._token)
        app.router.add_get("/v2/org/model/manifests/{reference}", self._manifest)
        app.router.add_get("/v2/org/model/blobs/{digest}", self._blob)

    async def _token(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Basic dXNlcjpDYW5hcnlQYXNz":
            return web.Response(status=401)
        self.scopes.append(request.query["scope"])
        token = f"canary-token-{len(self.tokens)}"
        self.tokens[token] = 3
        return web.json_response({"token": token})

    def _refused(self, request: web.Request) -> web.Response | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0) > 0:
            self.tokens[token] -= 1
            return None
        challenge = f'Bearer realm="{self.url}/token",service="test",scope="repository:org/model:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    def manifest(self) -> bytes:
        kind = "application/vnd.oci.image.manifest.v1+json"
        layer = {"mediaType": "application/octet-stream", "digest": sha256(self.body), "size": len(self.body)}
        return json.dumps({"mediaType": kind, "layers": [{**layer, "annotations": {TITLE: "m.bin"}}]}).encode()

    async def _manifest(self, request: web.Request) -> web.Response:
        return self._refused(request) or web.Response(body=self.manifest())

    async def _blob(self, request: web.Request) -> web.Response:
        # this registry knows no ranges
        return self._refused(request) or web.Response(body=self.body)


def test_registry_tokens_are_renewed_and_ranges_are_probed(
    container: Container,
) -> None:
    with _TokenRegistry() as server:
        host = server.url.removeprefix("http://")
        config = {"auths": {f"https://{host}/v1/": {"username": "user", "password": "CanaryPass"}}}
        container.give({".dockerconfigjson": json.dumps(config), "REGISTRY_INSECURE": "true"})
        for _ in range(2):
            outcome = container.get(f"oci://{host}/org/model", sha256(server.manifest()))
            assert outcome.code == 0, outcome.text
            assert tree(container.dest) == {"m.bin": server.body}
            assert "Canary" not in outcome.text
            assert "canary" not in outcome.text
        assert set(server.scopes) == {"repository:org/model:pull"}


class TestHub:
    @pytest.fixture
    def hf(self, container: Container) -> Iterator[Hf]:
        store = started(Hf)
        container.give(store.secret(store.url))
        yield store
        store.server.damage, store.server.ranges = None, True

    def test_moved_branch_does_not_change_the_pinned_commit(self, hf: Hf, container: Container) -> None:
        first = hf.server.commit("team/moving", {"m": b"one"})
        second = hf.server.commit("team/moving", {"m": b"two"})
        assert container.resolve("hf://team/moving").message["digest"] == f"git:{second}"
        assert container.get("hf://team/moving", f"git:{first}").code == 0
        assert tree(container.dest) == {"m": b"one"}

    def test_tags_and_commits_are_revisions(self, hf: Hf, container: Container) -> None:
        commit = hf.server.commit("team/tagged", {"m": b"one"}, "v1.0")
        for revision in ("v1.0", commit):
            assert container.resolve(f"hf://team/tagged@{revision}").message["digest"] == f"git:{commit}"
        outcome = container.resolve("hf://team/tagged@v2.0")
        assert outcome.reason == "ArtifactNotFound"
        assert "v2.0" in outcome.message["message"]

    def test_a_gated_model_says_so(self, hf: Hf, container: Container) -> None:
        hf.server.commit("team/gated", {"m": b"one"})
        hf.server.models["team/gated"].gated = True
        outcome = container.resolve("hf://team/gated")
        assert outcome.reason == "AccessDenied"
        assert "gated" in outcome.message["message"]

    @pytest.mark.parametrize("ranges", [True, False])
    def test_large_files_come_from_the_storage_without_the_token(
        self, hf: Hf, container: Container, ranges: bool
    ) -> None:
        hf.server.ranges = ranges
        hf.server.storage_authorization.clear()
        body = random_bytes(1_500_000, 4)
        commit = hf.server.commit("team/large", {"model.safetensors": body, "config.json": b"{}"})
        outcome = container.get("hf://team/large", f"git:{commit}")
        assert outcome.code == 0, outcome.text
        assert tree(container.dest) == {"model.safetensors": body, "config.json": b"{}"}
        assert set(hf.server.storage_authorization) == {""}
        assert "signature-of-storage" not in outcome.text

    def test_file_unlike_the_commits_listing_is_refused(self, hf: Hf, container: Container) -> None:
        commit = hf.server.commit("team/damaged", {"model.safetensors": random_bytes(300_000, 4)})
        hf.server.damage = b"?"
        outcome = container.get("hf://team/damaged", f"git:{commit}")
        assert outcome.reason == "DigestMismatch"
        assert "model.safetensors" in outcome.message["message"]
        assert tree(container.dest) == {}


class TestObjects:
    @pytest.fixture
    def s3(self, container: Container) -> S3:
        store = started(S3)
        container.give(store.secret(store.url))
        return store

    def test_slash_distinguishes_a_prefix_from_an_object(self, container: Container) -> None:
        # a folder of versitygw can't be both; this store can
        gs = started(Gs)
        container.give(gs.secret(gs.url))
        gs.server.buckets["models"].update({"both": b"object", "both/a": b"in the prefix", "both-not": b"other"})
        assert container.resolve("gs://models/both").message["digest"] == sha256(b"object")
        assert container.resolve("gs://models/both/").message["digest"] == folder_digest({"a": b"in the prefix"})

    def test_folder_markers_of_consoles_are_no_files(self, container: Container) -> None:
        gs = started(Gs)
        container.give(gs.secret(gs.url))
        gs.server.buckets["models"].update({"marked/": b"", "marked/sub/": b"", "marked/sub/a": b"a"})
        assert container.resolve("gs://models/marked").message["digest"] == folder_digest({"sub/a": b"a"})

    def test_a_public_bucket_needs_no_credentials(self, container: Container) -> None:
        gs = started(Gs)
        gs.server.buckets["open"] = {"m": b"free"}
        gs.server.public.add("open")
        container.give({"GOOGLE_ENDPOINT_URL": gs.url})
        assert container.resolve("gs://open/m").message["digest"] == sha256(b"free")

    def test_a_bucket_that_is_not_there_is_not_found(self, s3: S3, container: Container) -> None:
        outcome = container.resolve("s3://no-such-bucket/m")
        assert outcome.reason == "ArtifactNotFound", outcome.text

    def test_half_a_key_pair_is_named(self, s3: S3, container: Container) -> None:
        container.give({"AWS_ACCESS_KEY_ID": "x", "AWS_ENDPOINT_URL": s3.url})
        outcome = container.resolve("s3://models/m")
        assert outcome.reason == "AccessDenied"
        assert "AWS_SECRET_ACCESS_KEY" in outcome.message["message"]

    @pytest.mark.parametrize("status", [301, 400])
    def test_bucket_in_another_region_names_the_setting(self, container: Container, status: int) -> None:
        with FaultServer() as server:
            server.pages["/models/m"] = Page(status=[status] * 10)
            container.give(started(S3).secret(server.url))
            outcome = container.resolve("s3://models/m")
        assert outcome.reason == "StoreUnreachable"
        assert "AWS_REGION" in outcome.message["message"], outcome.text

    @pytest.mark.parametrize("endpoint", ["ftp://x", "http://user:CanaryPass@host", "host:9000", "http://h/?a=b"])
    def test_an_endpoint_that_is_no_url_is_named(self, s3: S3, container: Container, endpoint: str) -> None:
        container.give({**s3.secret(s3.url), "AWS_ENDPOINT_URL": endpoint})
        outcome = container.resolve("s3://models/m")
        assert outcome.reason == "InvalidURI"
        assert "AWS_ENDPOINT_URL" in outcome.message["message"]
        assert "CanaryPass" not in outcome.text

    def test_credentials_in_the_environment_work_too(self, s3: S3, container: Container) -> None:
        s3.put("by-environment", {"m": b"x"})
        container.give({})
        assert container.resolve("s3://models/by-environment/m", **s3.secret(s3.url)).code == 0

    def test_a_shared_access_signature_opens_a_container(self, container: Container) -> None:
        az = started(Az)
        az.put("signed", {"m": b"x"})
        container.give({"AZURE_STORAGE_SAS_TOKEN": "?" + az.sas(), "AZURE_ENDPOINT_URL": az.endpoint})
        outcome = container.resolve(az.uri("signed"))
        assert outcome.message.get("digest") == folder_digest({"m": b"x"}), outcome.text
        container.give({"AZURE_STORAGE_SAS_TOKEN": az.sas() + "A", "AZURE_ENDPOINT_URL": az.endpoint})
        outcome = container.resolve(az.uri("signed"))
        assert outcome.reason == "AccessDenied"
        assert "sig=" not in outcome.text

    def test_overwritten_between_two_pods_the_second_is_refused(self, s3: S3, container: Container) -> None:
        s3.put("overwritten", {"m.bin": b"one"})
        expected = container.resolve("s3://models/overwritten").message["digest"]
        s3.put("overwritten", {"m.bin": b"two"})
        outcome = container.get("s3://models/overwritten", expected)
        assert outcome.reason == "DigestMismatch"
        assert "s3://models/overwritten" in outcome.message["message"]


class TestClaim:
    @pytest.fixture
    def claim(self, container: Container) -> Path:
        container.environment["MODELWRIGHT_SOURCE_ROOT"] = str(container.folder / "mnt")
        claim = container.folder / "mnt" / "models"
        claim.mkdir(parents=True)
        return claim

    def test_links_within_the_claim_are_followed(self, container: Container, claim: Path) -> None:
        (claim / "..data-1").mkdir()
        (claim / "..data-1" / "m.bin").write_bytes(b"m")
        (claim / "..data").symlink_to("..data-1")
        (claim / "v").mkdir()
        (claim / "v" / "m.bin").symlink_to("../..data/m.bin")
        (claim / "v" / "loop").symlink_to(".")
        expected = folder_digest({"m.bin": b"m"})
        assert container.resolve("pvc://models/v").message["digest"] == expected
        assert container.get("pvc://models/v", expected).code == 0
        assert tree(container.dest) == {"m.bin": b"m"}
        assert not (container.dest / "m.bin").is_symlink()

    @pytest.mark.parametrize("target", ["/etc/passwd", "../../other-claim/secret"])
    def test_links_out_of_the_claim_are_refused(self, container: Container, claim: Path, target: str) -> None:
        (claim.parent / "other-claim").mkdir()
        (claim.parent / "other-claim" / "secret").write_bytes(b"x")
        (claim / "v").mkdir()
        (claim / "v" / "m").symlink_to(target)
        assert container.resolve("pvc://models/v").reason == "UnsafeArchive"
        assert container.resolve("pvc://models/v/m").reason == "UnsafeArchive"

    def test_pipes_are_refused_and_not_waited_for(self, container: Container, claim: Path) -> None:
        os.mkfifo(claim / "pipe")
        assert container.resolve("pvc://models/").reason == "UnsafeArchive"

    def test_a_claim_that_is_not_mounted_is_named(self, container: Container, claim: Path) -> None:
        outcome = container.resolve("pvc://other/m")
        assert outcome.reason == "ArtifactNotFound"
        assert "other is not mounted" in outcome.message["message"]

    def test_a_whole_claim_is_an_artifact(self, container: Container, claim: Path) -> None:
        (claim / "m").write_bytes(b"m")
        assert container.resolve("pvc://models").message["digest"] == folder_digest({"m": b"m"})

    @pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read_is_access_denied(self, container: Container, claim: Path) -> None:
        (claim / "m").write_bytes(b"m")
        (claim / "m").chmod(0)
        assert container.resolve("pvc://models/m").reason == "AccessDenied"
