"""Images are signed by digest, with where they came from; whatever was changed since is refused.

The registry is in memory here; tests/fetch/test_image_signatures.py has a real one."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from securesystemslib.signer import CryptoSigner

from scripts import images, provenance, samples, sbom, signing
from scripts.registry import Authentication, Image, Login, RegistryError, digest_of, find_login
from tests.lib.image_signing import BUILD, CONTENT, OPERATOR, Memory, new_signer, pem

ROOT = Path(__file__).resolve().parents[2]


COSIGNS_KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFNLqFhf4fiN6o/glAuYnq2jYUeL0
vRuLu/z39pmbVwS9ff5AYnlwaP9sxREajdLY9ynM6G1sy6AAmb7Z63TsLg==
-----END PUBLIC KEY-----
"""
COSIGNS_SIGNATURE = "MEYCIQDmtamqYPjMg81nqeBhptrPls44aA/r7PwLmspINJY4MwIhANKRpqe2E9UCBtGFdPoz/8jAbaQm4uP4h+IpwKTE6ClR"
SIGNED_BY_COSIGN = (
    b'{"critical":{"identity":{"docker-reference":"192.168.64.2:5000/cosign-signed-single-sample"},"image":'
    b'{"docker-manifest-digest":"sha256:634a8f35b5f16dcf4aaa0822adc0b1964bb786fca12f6831de8ddc45e5986a00"},'
    b'"type":"cosign container image signature"},"optional":null}'
)
IMAGE_OF_COSIGNS = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":'
    b'"application/vnd.docker.container.image.v1+json","size":1512,"digest":'
    b'"sha256:961769676411f082461f9ef46626dd7a2d1e2b2a38e6a44364bcbecf51e66dd4"},"layers":[{"mediaType":'
    b'"application/vnd.docker.image.rootfs.diff.tar.gzip","size":2896510,"digest":'
    b'"sha256:9d16cba9fb961d1aafec9542f2bf7cb64acfc55245f9e4eb5abecd4cdc38d749"}]}'
)
"""What cosign itself has signed, with its key and the image's manifest: signature/fixtures/dir-img-cosign-valid of
github.com/containers/image (Apache-2.0), the tests of Podman's verifier."""


def test_our_signatures_equal_cosigns_byte_for_byte(tmp_path: Path) -> None:
    image = Image("192.168.64.2:5000", "cosign-signed-single-sample", digest_of(IMAGE_OF_COSIGNS))
    assert signing._canonical(signing._claim(image)) == SIGNED_BY_COSIGN
    place = Memory(IMAGE_OF_COSIGNS)
    layer = signing.Layer(signing._PAYLOAD, SIGNED_BY_COSIGN, {signing._SIGNATURE: COSIGNS_SIGNATURE})
    place.put_blob(layer.data)
    tag = "sha256-634a8f35b5f16dcf4aaa0822adc0b1964bb786fca12f6831de8ddc45e5986a00.sig"
    place.put_manifest(tag, json.dumps({"layers": [layer.descriptor]}).encode())
    (tmp_path / "cosign.pub").write_bytes(COSIGNS_KEY)
    assert signing.verify(place, image, signing.public_key(tmp_path / "cosign.pub"), needed=()) == {}
    other = Image(image.registry, image.repository, digest_of(CONTENT))
    place.put_manifest(other.digest, CONTENT)
    place.put_manifest(signing._tag(other, "sig"), place.manifests[tag])
    with pytest.raises(signing.NotSigned):
        signing.verify(place, other, signing.public_key(tmp_path / "cosign.pub"), needed=())


def statements(image: Image = OPERATOR) -> list[dict]:
    return [
        provenance.statement(image, provenance.SLSA, provenance.provenance(BUILD)),
        provenance.statement(image, provenance.CYCLONEDX, {"bomFormat": "CycloneDX"}),
    ]


@pytest.fixture
def signer() -> CryptoSigner:
    return new_signer()


@pytest.fixture
def signed(signer: CryptoSigner) -> Memory:
    place = Memory(CONTENT)
    signing.sign(place, OPERATOR, signer, statements())
    return place


def test_what_was_signed_is_verified_by_the_public_key(signed: Memory, signer: CryptoSigner) -> None:
    found = signing.verify(signed, OPERATOR, signer.public_key)
    assert found[provenance.SLSA]["runDetails"]["builder"]["id"] == "https://ci.example.com/runs/7"
    assert found[provenance.CYCLONEDX] == {"bomFormat": "CycloneDX"}
    line = signing.describe(OPERATOR, found)
    assert (
        line
        == f"{OPERATOR}: signed as operator 0.1.0; commit {BUILD.source.commit}, built by https://ci.example.com/runs/7"
    )


def test_it_is_in_the_format_of_cosign(signed: Memory, signer: CryptoSigner) -> None:
    """As its specs have it: tags, media types, annotations, payload and envelope."""
    (signature,) = signed.layers("sig")
    assert signature["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    assert json.loads(signed.blobs[signature["digest"]]) == {
        "critical": {
            "identity": {"docker-reference": "registry.example.com/modelwright/operator"},
            "image": {"docker-manifest-digest": OPERATOR.digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    raw = base64.b64decode(signature["annotations"]["dev.cosignproject.cosign/signature"], validate=True)
    signer._private_key.public_key().verify(raw, signed.blobs[signature["digest"]], ec.ECDSA(SHA256()))
    assert [(each["mediaType"], each["annotations"]) for each in signed.layers("att")] == [
        (
            "application/vnd.dsse.envelope.v1+json",
            {"dev.cosignproject.cosign/signature": "", "predicateType": kind},
        )
        for kind in ("https://slsa.dev/provenance/v1", "https://cyclonedx.org/bom")
    ]
    envelope = json.loads(signed.blobs[signed.layers("att")[0]["digest"]])
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert [each["keyid"] for each in envelope["signatures"]] == [""]
    assert set(signed.manifests) == {OPERATOR.digest} | {
        f"sha256-{OPERATOR.digest.removeprefix('sha256:')}.{what}" for what in ("sig", "att")
    }


def in_envelope(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        envelope = json.loads(data)
        payload = base64.b64decode(envelope["payload"])
        assert old in payload
        envelope["payload"] = base64.b64encode(payload.replace(old, new)).decode()
        return json.dumps(envelope).encode()

    return changed


def without_signatures(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "signatures": []}).encode()


def of_another_type(data: bytes) -> bytes:
    return json.dumps({**json.loads(data), "payloadType": "application/json"}).encode()


def moved_from_another(signed: Memory, signer: CryptoSigner, what: str) -> None:
    """The key's signature of another image, where this image's is."""
    other = Image(OPERATOR.registry, OPERATOR.repository, "sha256:" + "0" * 64)
    signing.sign(signed, other, signer, statements(other))
    signed.put_layers(what, signed.layers(what, other))


TAMPERED: dict[str, Callable[[Memory, CryptoSigner], None]] = {
    "the signature is gone": lambda m, _: m.put_layers("sig", []),
    "the signature's text has changed": lambda m, _: m.change("sig", lambda d: d.replace(b"sha256:", b"sha256:0")),
    "the signature is of another image": lambda m, s: moved_from_another(m, s, "sig"),
    "the signature is another key's": lambda m, _: (
        signing.sign(m, OPERATOR, new_signer(), []) or m.put_layers("sig", m.layers("sig")[1:])
    ),
    "the provenance is gone": lambda m, _: m.put_layers("att", m.layers("att")[1:]),
    "the bill of materials is gone": lambda m, _: m.put_layers("att", m.layers("att")[:1]),
    "the statements are of another image": lambda m, s: moved_from_another(m, s, "att"),
    "the provenance says another commit": lambda m, _: m.change("att", in_envelope(b"c0ffee", b"c0ffff")),
    "the provenance says another builder": lambda m, _: m.change("att", in_envelope(b"ci.example", b"me.example")),
    "the bill of materials has changed": lambda m, _: m.change("att", in_envelope(b'"CycloneDX"', b'"Cyclone"'), 1),
    "a statement has no signature": lambda m, _: m.change("att", without_signatures),
    "a statement is of another type than what was signed": lambda m, _: m.change("att", of_another_type),
    "the image is gone": lambda m, _: m.manifests.pop(OPERATOR.digest),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_tampered_with_is_refused(signed: Memory, signer: CryptoSigner, what: str) -> None:
    TAMPERED[what](signed, signer)
    with pytest.raises(signing.NotSigned):
        signing.verify(signed, OPERATOR, signer.public_key)


def test_another_image_under_the_digest_is_refused(signed: Memory, signer: CryptoSigner) -> None:
    signed.manifests[OPERATOR.digest] = b"{}"
    with pytest.raises(RegistryError, match="the registry gave"):
        signing.verify(signed, OPERATOR, signer.public_key)


def test_another_key_verifies_nothing(signed: Memory) -> None:
    with pytest.raises(signing.NotSigned, match="no signature of this key"):
        signing.verify(signed, OPERATOR, new_signer().public_key)


def test_signing_again_adds_nothing_and_takes_nothing_of_others(signed: Memory, signer: CryptoSigner) -> None:
    other = new_signer()
    signing.sign(signed, OPERATOR, other, statements())
    signing.sign(signed, OPERATOR, signer, statements())
    assert (len(signed.layers("sig")), len(signed.layers("att"))) == (2, 4)
    for each in (signer, other):
        assert set(signing.verify(signed, OPERATOR, each.public_key)) == set(signing.NEEDED)


def test_provenance_keeps_to_the_schemas_of_in_toto_and_slsa() -> None:
    statement, _ = statements()
    Statement.copy_from_pb(ParseDict(statement, statement_pb2.Statement())).validate()
    predicate = ParseDict(statement["predicate"], Provenance())
    for dependency in predicate.build_definition.resolved_dependencies:
        ResourceDescriptor.copy_from_pb(dependency).validate()


def test_provenance_names_commit_base_lock_and_recipe() -> None:
    predicate = provenance.provenance(BUILD)
    assert predicate["buildDefinition"]["internalParameters"] == {"dirty": False}
    assert predicate["buildDefinition"]["resolvedDependencies"] == [
        {
            "name": "source",
            "uri": "git+https://git.example.com/modelwright",
            "digest": {"gitCommit": BUILD.source.commit},
        },
        {"name": "base image", "uri": f"oci://{BUILD.base}", "digest": {"sha256": "ab" * 32}},
        {"name": "requirements/operator.txt", "digest": {"sha256": "cd" * 32}},
    ]
    for image in images.NAMES:
        assert set(provenance.materials(ROOT, image)) == {f"requirements/{image}.txt", f"images/{image}/Containerfile"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "file").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    git("remote", "add", "origin", "https://robot:canary-token@git.example.com/team/project.git")
    return tmp_path


@pytest.mark.parametrize(
    ("what", "name", "dirty"),
    [("nothing is changed", None, False), ("a file is changed", "file", True), ("a file is new", "new", True)],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_work_tree_that_is_not_its_commit_is_called_dirty(
    tree: Path, what: str, name: str | None, dirty: bool
) -> None:
    if name:
        (tree / name).write_text("2")
    found = provenance.source(tree)
    assert (len(found.commit), found.dirty) == (40, dirty)


def test_no_login_of_the_repository_is_published(tree: Path) -> None:
    assert provenance.source(tree).repository == "https://git.example.com/team/project.git"
    assert provenance._without_login("git@git.example.com:team/project.git") == "ssh://git.example.com/team/project.git"
    assert provenance._without_login("/home/me/project") == ""


def test_without_a_commit_nothing_is_signed(tmp_path: Path) -> None:
    with pytest.raises(provenance.NoSource, match="no Git work tree"):
        provenance.source(tmp_path)


COSIGNS = b"""-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
AAAA
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    ("what", "content", "password", "text"),
    [
        ("it isn't there", None, "", "can't be read"),
        ("it is no key", b"hello", "", "private key in PEM"),
        ("it is a key of cosign's", COSIGNS, "", "make one with openssl"),
        ("it is on another curve", pem(ec.generate_private_key(ec.SECP384R1())), "", "P-256"),
        ("it is of another kind", pem(ed25519.Ed25519PrivateKey.generate()), "", "P-256"),
        ("it has a password", pem(ec.generate_private_key(ec.SECP256R1()), b"right"), "", "SIGN_PASSWORD"),
        ("its password is another", pem(ec.generate_private_key(ec.SECP256R1()), b"right"), "wrong", "private key"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith(("it ", "its ")) else "",
)
def test_a_key_that_cannot_be_used_is_refused(
    tmp_path: Path, what: str, content: bytes | None, password: str, text: str
) -> None:
    if content is not None:
        (tmp_path / "release.key").write_bytes(content)
    with pytest.raises(signing.BadKey, match=f"SIGN_KEY: .*{text}"):
        signing.private_key(tmp_path / "release.key", password)


def test_a_key_with_a_password_signs(tmp_path: Path) -> None:
    (tmp_path / "release.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1()), b"right"))
    assert signing.private_key(tmp_path / "release.key", "right").sign(b"x").signature


@pytest.mark.parametrize("reference", ["registry.example.com/x:1", "registry.example.com/x", "x@sha256:" + "0" * 64])
def test_an_image_is_named_by_digest(reference: str) -> None:
    with pytest.raises(ValueError, match="by digest"):
        Image.parse(reference)


class TestPush:
    """`make push`, without an engine: what it builds, pushes and says."""

    @pytest.fixture(autouse=True)
    def place(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Memory:
        place = Memory(CONTENT)
        monkeypatch.setattr(images, "VALUES", tmp_path / "build" / "images.yaml")
        monkeypatch.setattr(images, "PROVENANCE", tmp_path / "provenance")
        monkeypatch.setattr(images, "ROOT", ROOT)
        monkeypatch.setattr(sbom, "FOLDER", tmp_path)
        monkeypatch.setattr(images, "build_image", lambda *_, **__: "sha256:1")
        monkeypatch.setattr(
            images, "publish", lambda tag, target, **_: f"{target.rpartition(':')[0]}@{OPERATOR.digest}"
        )
        monkeypatch.setattr(images, "base_of", lambda *_, **__: (BUILD.base, BUILD.base_digest))
        monkeypatch.setattr(images, "Registry", lambda *_, **__: place)
        monkeypatch.setattr(samples, "Registry", lambda *_, **__: place)
        monkeypatch.setattr(samples, "train", lambda: {"1": b"a model"})

        def write(image: str, tag: str, folder: Path) -> Path:
            (folder / f"{image}.cdx.json").write_text('{"bomFormat": "CycloneDX"}')
            return folder / f"{image}.cdx.json"

        monkeypatch.setattr(sbom, "write", write)
        monkeypatch.setattr("sys.argv", ["images.py", "--push", "registry.example.com/modelwright"])
        monkeypatch.setattr(Path, "relative_to", lambda self, *_: self)
        monkeypatch.delenv("SIGN_KEY", raising=False)
        return place

    def test_without_a_key_it_says_that_the_images_are_not_signed(
        self, place: Memory, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert images.main() == 0
        assert "the images are not signed" in capsys.readouterr().err
        assert set(place.manifests) == {OPERATOR.digest, "1"}

    def test_with_a_key_each_image_is_signed_with_its_provenance(
        self, place: Memory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "release.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
        monkeypatch.setenv("SIGN_KEY", str(tmp_path / "release.key"))
        monkeypatch.setenv("BUILDER_ID", "https://ci.example.com/runs/7")
        assert images.main() == 0
        said = capsys.readouterr()
        assert said.err.count("not signed") == 0
        for name in images.NAMES:
            assert f"modelwright/{name}@{OPERATOR.digest}: signed as {name} " in said.out
            assert json.loads((tmp_path / "provenance" / f"{name}.json").read_text())["buildDefinition"]

    def test_an_unusable_key_ends_it_before_any_build(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def build(*_: object, **__: object) -> str:
            raise AssertionError("built")

        monkeypatch.setattr(images, "build_image", build)
        monkeypatch.setenv("SIGN_KEY", "/nowhere/release.key")
        assert images.main() == 1
        assert "error: SIGN_KEY: /nowhere/release.key can't be read" in capsys.readouterr().err

    def test_what_could_not_be_signed_is_not_in_the_values(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "release.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
        monkeypatch.setenv("SIGN_KEY", str(tmp_path / "release.key"))

        def refuse(*_: object) -> None:
            raise RegistryError("PUT ...: 403")

        monkeypatch.setattr(signing, "sign", refuse)
        assert images.main() == 1
        assert "403" in capsys.readouterr().err
        assert not images.VALUES.exists()


DOCKER, BUILDAH = ".docker/config.json", "run/containers/auth.json"
AB, XY = {"auth": "YTpi"}, {"auth": "eDp5"}


class TestLogin:
    """The registry is asked with the login that pushed."""

    @pytest.mark.parametrize(
        ("what", "file", "logins", "login"),
        [
            ("Docker's", DOCKER, {"registry.example.com": AB}, Login("a", "b")),
            ("with an address", DOCKER, {"https://registry.example.com/v1/": AB}, Login("a", "b")),
            ("a token", DOCKER, {"registry.example.com": AB | {"identitytoken": "t"}}, Login("<token>", "t")),
            ("Buildah's", BUILDAH, {"registry.example.com": AB}, Login("a", "b")),
            ("a part's", BUILDAH, {"registry.example.com": XY, OPERATOR.name: AB}, Login("a", "b")),
            ("another registry's", DOCKER, {"registry.example.org": AB}, Login()),
            ("none", DOCKER, {}, Login()),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_it_is_found(self, tmp_path: Path, what: str, file: str, logins: dict, login: Login) -> None:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(json.dumps({"auths": logins}))
        assert find_login(OPERATOR, {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}) == login

    def test_a_credential_helper_is_asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        helper = tmp_path / "docker-credential-test"
        helper.write_text('#!/bin/sh\ngrep -q registry.example.com && echo \'{"Username": "a", "Secret": "b"}\'\n')
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        (tmp_path / "config.json").write_text('{"credsStore": "test"}')
        assert find_login(OPERATOR, {"DOCKER_CONFIG": str(tmp_path), "XDG_RUNTIME_DIR": "/nowhere"}) == Login("a", "b")

    def ask(self, realm: str, login: Login, url: str = "https://registry.example.com/v2/x") -> list[httpx.Request]:
        seen: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            if request.url.path == "/token":
                return httpx.Response(200, json={"token": "t"})
            if "Authorization" in request.headers:
                return httpx.Response(200)
            challenge = f'Bearer realm="{realm}",service="registry"' if realm else 'Basic realm="registry"'
            return httpx.Response(401, headers={"WWW-Authenticate": challenge})

        client = httpx.Client(
            transport=httpx.MockTransport(answer), auth=Authentication(login, "repository:x:pull,push")
        )
        assert client.get(url).status_code == 200
        return seen

    def test_a_login_is_exchanged_for_a_token_to_push(self) -> None:
        _, token, again = self.ask("https://auth.example.com/token", Login("a", "b"))
        assert dict(token.url.params) == {"service": "registry", "scope": "repository:x:pull,push"}
        assert token.headers["Authorization"] == "Basic YTpi"
        assert again.headers["Authorization"] == "Bearer t"

    def test_an_identity_token_is_a_refresh_token(self) -> None:
        _, token, _ = self.ask("https://auth.example.com/token", Login("<token>", "kept"))
        assert token.method == "POST"
        assert b"refresh_token=kept" in token.content

    def test_a_plain_login_is_given_when_asked_for(self) -> None:
        assert self.ask("", Login("a", "b"))[1].headers["Authorization"] == "Basic YTpi"

    def test_no_login_goes_to_a_token_service_without_tls(self) -> None:
        with pytest.raises(RegistryError, match="without TLS"):
            self.ask("http://auth.example.com/token", Login("a", "b"))
