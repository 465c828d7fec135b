"""Manifests for `kubectl modelwright new`, with the API's field descriptions as comments."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from modelwright.api.crd.definition import build_schema
from modelwright.api.names import API_VERSION
from modelwright.api.v1alpha1 import Model, ModelVersion, RetrainingPolicy, RolloutPolicy

Json = Mapping[str, Any]

WIDTH: Final = 110
_KINDS: Final[Mapping[str, Any]] = {
    "model": Model,
    "version": ModelVersion,
    "policy": RolloutPolicy,
    "retraining": RetrainingPolicy,
}
_OMITTED_FIELDS: Final = ("changedBy", "author", "authors")
"""Fields that name the writer of the object, whose name is unknown here."""
_VERSION_SUFFIX: Final = re.compile(r"-v?\d+$")
_SENTENCE_END: Final = re.compile(r"(?<=[a-z\d)\"'`])\. (?=[A-Z])")


def render_draft(what: str, name: str, model: str | None = None) -> str:
    """Render the YAML of a `model`, `version`, `policy` or `retraining`. `model` defaults to the object's name
    without a version suffix."""
    model = model or _VERSION_SUFFIX.sub("", name)
    kind = _KINDS[what]
    kind_schema = build_schema(kind)
    head = [f"# {line}" for line in _wrap_comment(f"{kind.__name__}: {kind.__crd__.description}")]
    head += [f"apiVersion: {API_VERSION}", f"kind: {kind.__name__}", "metadata:", f"  name: {name}", "spec:"]
    spec = _example_specs(name, model)[what]
    return "\n".join([*head, *_render_mapping(spec, kind_schema["properties"]["spec"], "  ", with_others=True)]) + "\n"


def _example_specs(name: str, model: str) -> dict[str, dict[str, Any]]:
    trainer = {
        "name": "train",
        "image": "registry.example.com/trainer:1",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [trainer],
    }
    return {
        "model": {
            "version": {"name": f"{name}-1"},
            "serving": {
                "replicas": 2,
                "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
            },
            "rolloutPolicyRef": {"name": "canary"},
        },
        "version": {
            "modelRef": {"name": model},
            "artifact": {"uri": f"s3://models/{model}/1", "format": {"name": "sklearn", "version": "1"}},
            "metrics": [{"name": "accuracy", "value": "0.95", "dataset": "holdout"}],
            "card": {"summary": "What this version is.", "license": "Apache-2.0"},
        },
        "policy": {
            "strategy": {"steps": [{"weight": 10, "hold": "5m"}, {"weight": 50, "hold": "5m"}, {"weight": 100}]},
            "analysis": {
                "interval": "30s",
                "metrics": [{"name": "errors", "builtin": "error-rate", "margin": "0.02"}],
            },
            "deadline": "2h",
            "keepPrevious": "10m",
        },
        "retraining": {
            "modelRef": {"name": model},
            "triggers": [{"name": "weekly", "schedule": {"cron": "0 3 * * 1", "timeZone": "Etc/UTC"}}],
            "guard": {"cooldown": "24h"},
            "run": {
                "dataset": {"uri": f"s3://data/{model}"},
                "train": {"job": {"template": {"spec": pod}}},
                "output": {"uri": f"s3://models/{model}", "format": {"name": "sklearn", "version": "1"}},
            },
        },
    }


def _render_mapping(value: Json, node: Json, indent: str, *, with_others: bool = False) -> Iterator[str]:
    """Render a mapping with its descriptions. `with_others`: also list the unused fields as comments."""
    properties: Json = node.get("properties") or {}
    for key, member in value.items():
        below = properties.get(key) or {}
        yield from _render_comment(below, indent)
        yield from _render_member(key, member, below, indent)
    others = [key for key in properties if key not in value and key not in _OMITTED_FIELDS]
    if with_others and others:
        yield f"{indent}# Also:"
        for key in others:
            entry = f"{key}: {_SENTENCE_END.split(properties[key].get('description', ''))[0].rstrip('.')}."
            yield from (f"{indent}# {line}" for line in _wrap_comment(entry, indent, "  "))


def _render_member(key: str, value: Any, node: Json, indent: str) -> Iterator[str]:
    # A value without a schema, such as a pod, is short enough without comments.
    if isinstance(value, dict) and node.get("properties") and len(_dump_flow(value)) > 40:
        yield f"{indent}{key}:"
        yield from _render_mapping(value, node, f"{indent}  ")
    elif isinstance(value, list):
        yield f"{indent}{key}:"
        yield from (f"{indent}- {_dump_flow(item)}" for item in value)
    elif isinstance(value, dict) and len(_dump_flow(value)) > WIDTH - len(indent):
        yield f"{indent}{key}:"
        text = yaml.safe_dump(value, sort_keys=False)
        yield from (f"{indent}  {line}" for line in text.splitlines())
    else:
        yield f"{indent}{key}: {_dump_flow(value)}"


def _render_comment(node: Json, indent: str) -> Iterator[str]:
    yield from (f"{indent}# {line}" for line in _wrap_comment(str(node.get("description", "")), indent))


def _dump_flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _wrap_comment(text: str, indent: str = "", next_line: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH - len(indent) - 2, subsequent_indent=next_line)
