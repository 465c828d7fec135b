"""What `kubectl modelwright new` prints: a manifest to edit, with what the API says of each field as comments."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from modelwright.api.crd.definition import schema
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
_NOT_WRITTEN: Final = ("changedBy", "author", "authors")
"""Fields that say who has written the object: the writer's own name, which isn't known here."""
_NUMBER: Final = re.compile(r"-v?\d+$")
_SENTENCE: Final = re.compile(r"(?<=[a-z\d)\"'`])\. (?=[A-Z])")


def draft(what: str, name: str, model: str | None = None) -> str:
    """The YAML of a `model`, `version`, `policy` or `retraining`. `model`: the name of its Model; by default that of
    the object, without the number of a version."""
    model = model or _NUMBER.sub("", name)
    kind = _KINDS[what]
    whole = schema(kind)
    head = [f"# {line}" for line in _wrapped(f"{kind.__name__}: {kind.__crd__.description}")]
    head += [f"apiVersion: {API_VERSION}", f"kind: {kind.__name__}", "metadata:", f"  name: {name}", "spec:"]
    spec = _specs(name, model)[what]
    return "\n".join([*head, *_mapping(spec, whole["properties"]["spec"], "  ", with_others=True)]) + "\n"


def _specs(name: str, model: str) -> dict[str, dict[str, Any]]:
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


def _mapping(value: Json, node: Json, indent: str, *, with_others: bool = False) -> Iterator[str]:
    """The members of a mapping with their descriptions; `with_others`: then a line for each field that isn't used."""
    properties: Json = node.get("properties") or {}
    for key, member in value.items():
        below = properties.get(key) or {}
        yield from _comment(below, indent)
        yield from _member(key, member, below, indent)
    others = [key for key in properties if key not in value and key not in _NOT_WRITTEN]
    if with_others and others:
        yield f"{indent}# Also:"
        for key in others:
            said = f"{key}: {_SENTENCE.split(properties[key].get('description', ''))[0].rstrip('.')}."
            yield from (f"{indent}# {line}" for line in _wrapped(said, indent, "  "))


def _member(key: str, value: Any, node: Json, indent: str) -> Iterator[str]:
    # What no schema describes, such as a pod, is short enough in one piece.
    if isinstance(value, dict) and node.get("properties") and len(_flow(value)) > 40:
        yield f"{indent}{key}:"
        yield from _mapping(value, node, f"{indent}  ")
    elif isinstance(value, list):
        yield f"{indent}{key}:"
        yield from (f"{indent}- {_flow(item)}" for item in value)
    elif isinstance(value, dict) and len(_flow(value)) > WIDTH - len(indent):
        yield f"{indent}{key}:"
        text = yaml.safe_dump(value, sort_keys=False)
        yield from (f"{indent}  {line}" for line in text.splitlines())
    else:
        yield f"{indent}{key}: {_flow(value)}"


def _comment(node: Json, indent: str) -> Iterator[str]:
    yield from (f"{indent}# {line}" for line in _wrapped(str(node.get("description", "")), indent))


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _wrapped(text: str, indent: str = "", next_line: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH - len(indent) - 2, subsequent_indent=next_line)
