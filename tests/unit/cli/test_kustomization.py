"""A kustomization that names anything elsewhere is not rendered: kubectl would fetch it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from modelwright.cli import kustomization, plugin

REMOTE: list[tuple[str, str, str]] = [
    ("an address", "resources: [https://evil.example/x.yaml]", "https://evil.example/x.yaml"),
    ("the metadata service", "resources: ['http://169.254.169.254/latest/']", "169.254.169.254"),
    ("a repository", "resources: ['github.com/someone/base?ref=v1']", "github.com/someone/base?ref=v1"),
    ("one that looks like a folder", "resources: [github.com/someone/base]", "github.com"),
    ("one by ssh", "resources: ['git@evil.example:someone/base']", "git@evil.example"),
    ("one in short", "bases: ['gh:someone/base']", "gh:someone/base"),
    ("a component", "components: ['ssh://evil.example/base']", "ssh://evil.example"),
    ("a patch", "patches: [{path: 'https://evil.example/p.yaml'}]", "https://evil.example/p.yaml"),
    ("an older patch", "patchesStrategicMerge: ['https://evil.example/p.yaml']", "https://evil.example/p.yaml"),
    ("a file of a ConfigMap", "configMapGenerator: [{name: a, files: ['x=https://evil.example/x']}]", "evil.example/x"),
    ("a schema", "openapi: {path: 'https://evil.example/o.json'}", "evil.example/o.json"),
    (
        "a file of a generator in place",
        "generators: [\"kind: ConfigMapGenerator\\nfiles: ['https://evil.example/x']\"]",
        "evil.example/x",
    ),
    ("a file of a generator", "generators: [g.yaml]", "evil.example/g"),
    ("what is not there", "resources: [nowhere.yaml]", "nowhere.yaml"),
    ("a folder that names an address", "resources: [sub]", "https://evil.example/sub"),
    ("not YAML", "resources: [", "not YAML"),
]
LOCAL = {
    "kustomization.yaml": "resources: [base.yaml, other, ./sub.d]\n"
    "commonAnnotations: {see: 'https://example.com'}\nimages: [{name: 'registry:5000/x', newTag: v1}]\n"
    "configMapGenerator: [{name: a, literals: ['URL=https://example.com'], files: [base.yaml]}]\n"
    'patches: [{patch: "- op: add\\n  path: /x\\n  value: https://example.com", target: {kind: Model}}]\n',
    "base.yaml": "url: https://example.com\n",
    "other/kustomization.yml": "resources: [../shared]\n",
    "shared/Kustomization": "resources: [../other]\n",
    "sub.d/kustomization.yaml": "namePrefix: 'x-'\n",
}


def put(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(("text", "says"), [case[1:] for case in REMOTE], ids=[case[0] for case in REMOTE])
def test_what_is_elsewhere_is_named_and_never_fetched(
    text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(
        tmp_path,
        {
            "kustomization.yaml": text,
            "g.yaml": "files: [https://evil.example/g]",
            "github.com/someone/base/kustomization.yaml": "",
            "sub/kustomization.yaml": "resources: ['https://evil.example/sub']",
        },
    )
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(program))
    assert plugin.main(["lint", "--offline", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert "kubectl kustomize" in said
    assert not (tmp_path / "ran").exists()


def test_local_files_are_rendered_and_texts_may_have_addresses(tmp_path: Path) -> None:
    put(tmp_path, LOCAL)
    kustomization.require_local(tmp_path)


NESTED = "\n".join(["a0: &a0 {x: y}", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))])
MERGED = "\n".join(
    ["a0: &a0 {x: y}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30))]
)


@pytest.mark.parametrize("text", [NESTED, MERGED], ids=["aliases of aliases", "merges of merges"])
@pytest.mark.parametrize("command", [["lint", "--offline"], ["import", "kserve"]], ids=" ".join)
def test_aliases_that_would_fill_the_memory_are_refused(
    command: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: x}\n" + text)
    assert plugin.main([*command, str(file)]) == 1
    said = capsys.readouterr()
    assert "aliases stand for more than" in said.out + said.err
