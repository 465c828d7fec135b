"""Random objects of our kinds, right and wrong, drawn from the generated schemas."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from hypothesis import strategies as st

from modelwright.api.cel import INT_OR_STRING, PRESERVE
from modelwright.api.crd.definition import build_schema
from modelwright.api.names import API_VERSION

# Texts that a CEL rule decides about, by the end of their path: right ones, and wrong ones near the rule's edge.
TEXTS: dict[str, tuple[list[str], list[str]]] = {
    "artifact.uri": (
        [
            "s3://models/digits/1",
            "gs://models/a b",
            "gs://models.example/x",
            "az://account/container/model.zip",
            "https://example.com/m.tar.gz?a=b",
            "https://example.com",
            "pvc://claim/a/b",
            "oci://example.com:5000/team/m:1",
            "oci://example.com/m@sha256:" + "a" * 64,
            "hf://org/name@main",
        ],
        [
            "az://A/container/x",
            "http://u@example.com/m",
            "pvc://claim/../b",
            "pvc://claim/",
            "oci://example.com/m@sha256:" + "a" * 63,
            "hf://org",
            "file:///etc/passwd",
            "S3://models/digits/1",
            "s3://models/digits/é",
        ],
    ),
    "artifact.digest": (
        ["sha256:" + "0" * 64, "git:" + "f" * 40],
        ["sha256:" + "0" * 63, "git:" + "g" * 40, "sha256:"],
    ),
    "http.value": (["", "/", "/a", "/data/0/a~1b~0c"], ["a", "/a~b", "/~2", "a/b"]),
    "latency.max": (["1ms", "250ms", "1h"], ["0s", "61m", "0.5"]),
    "margin": (["0", "0.02", "-0.5", "1"], ["1.1", "-2", "1e400", "5 %", "inf"]),
    "max": (["0.5", "1", "9e-1"], ["2", "1e999", "0.05", ".5", "-1e999"]),
    "min": (["0", "0.1", "1e-400"], ["-1", "1e400", "0.95", "NaN"]),
    "maxDelta": (["0.5", "1e3"], ["-3", "1e999", "+1"]),
    "minDelta": (["-0.5", "-1e3"], ["2e3", "-1e999", "1."]),
    "percentile": (["0.95", "0.5"], ["0.0", "1.0", "95", "0.", ".5"]),
    "confidence": (["0.95", "0.999"], ["0", "1", "0.95 "]),
    "threshold": (["250ms", "1s"], ["0ms", "2h", "1"]),
    "hold": (["0s", "2m", "720h"], ["721h", "-1s", "2"]),
    "timeout": (["1s", "48h"], ["999ms", "721h", "0s"]),
    "abTest.duration": (["1s", "168h"], ["0s", "721h", "1w"]),
    "duration": (["1m", "62h", "744h"], ["59s", "745h", "1d"]),
    "interval": (["1s", "30s", "1h"], ["999ms", "61m"]),
    "deadline": (["30m", "1s"], ["0s", "721h"]),
    "cron": (["0 3 * * 1", "*/5 0-3,5 LW * 5#2"], ["* * * *", "@daily"]),
    "prometheus.query": (
        ["up", 'sum(rate(a{b="c"}[5m])) / 2', "(" * 32 + "a" + ")" * 32, "-" * 8 + "a"],
        ["( " * 33 + "a" + ")" * 33, "-+" * 5 + "a"],
    ),
    "cooldown": (["0s", "24h"], ["8761h", "1d"]),
    "per": (["1m", "168h"], ["59s", "8761h"]),
    "initial": (["1s", "10m"], ["0s", "721h"]),
    "backoff.max": (["1s", "24h"], ["0s", "8761h"]),
    "after": (["1m", "720h"], ["59s", "17521h"]),
    "every": (["1m", "10m"], ["59s", "25h"]),
    "keepPrevious": (["0s", "10m"], ["721h", "10"]),
    "historyTTL": (["0s", "168h"], ["8761h", "1y"]),
    "schedule": (
        ["0 18 * * 5", "*/5 0-3,5 LW * 5#2", "0 0 1 jan sun"],
        ["* * * *", "0 18 ? * *", "0  18 * * 5", "@daily", "a b c d e"],
    ),
    "value": (["0.98", "-1", "1e5", "1.5E-12"], [".5", "1.", "+1", "NaN", "1e1234", "0x1", "1\n"]),
    "startTimeout": (
        ["10m", "1h30m", "1500ms", "1s", "24h"],
        ["999ms", "25h", "10", "1d", "1h1h1h1h1h", "99999h", "0h0m"],
    ),
    "restartedAt": (
        ["2026-11-21T03:00:00Z", "2026-11-21T03:00:00.5+01:00"],
        ["2026-11-21", "2026-11-21t03:00:00z"],
    ),
    "expiresAt": (
        ["2026-11-21T03:00:00Z", "2026-11-21T03:00:00.123456789+01:00", "9999-12-31T23:59:59Z"],
        ["2026-02-30T03:00:00Z", "2026-11-21T24:00:00Z", "9999-12-31T23:59:59-12:00", "1969-01-01T00:00:00Z", "now"],
    ),
    "pathPrefix": (["/", "/a", "/a/b.c"], ["/a/", "//a", "/a/..", "/...", "/a b", "a", "/%41"]),
    "modelPath": (["/mnt/models", "/models/$(MODEL_NAME)/1"], ["/", "/a/../b", "/$(OTHER)", "mnt", "/.a"]),
    "path": (["/v1/models/$(MODEL_NAME)", "/"], ["/a b", "ready", "/é"]),
}
QUANTITIES: tuple[list[Any], list[Any]] = (
    [0, 1, "500m", "1Gi", "0.5", "1e3", ".5"],
    ["", "-1", -1, "1GB", "1 Gi", "1e", "1" * 33],
)
KEYS = (["a", "cpu", "example.com/team", "UPPER_c.x"], ["-a", "a b", "", "x" * 63, "x" * 64, "x" * 129])

# Objects whose members must go together, by their path.
WHOLES: dict[str, list[Any]] = {
    "spec.strategy": [
        {"preset": "Canary", "sticky": True},
        {"steps": [{"mirror": {}}, {"weight": 5, "hold": "2m"}, {"hold": "1m"}, {"approval": {}}, {"weight": 100}]},
        {"steps": [{"weight": 0}, {"match": {"headers": [{"name": "x-user", "value": "me"}]}}, {"weight": 50}]},
        {"abTest": {"duration": "1h", "winner": {"metric": "a", "better": "Lower"}}},
        {
            "abTest": {
                "headers": [{"name": "x", "value": "y", "type": "RegularExpression"}],
                "duration": "1h",
                "winner": {"metric": "a", "better": "Higher", "margin": "0.1"},
                "loser": "Keep",
            }
        },
        {"recreate": {}},
    ],
    "spec.strategy.steps[]": [
        {"weight": 10},
        {"hold": "1m"},
        {"mirror": {"percent": 1}},
        {"approval": {"required": 2}},
    ],
    "spec.triggers[]": [
        {"name": "a", "schedule": {"cron": "0 3 * * 1", "timeZone": "Europe/Berlin", "catchUp": "All"}},
        {"name": "b", "prometheus": {"query": "up", "above": "0.2", "consecutive": 1, "interval": "5s"}},
        {"name": "c", "data": {"uri": "s3://data/digits", "changed": "Count"}},
        {"name": "d", "webhook": {"source": "Alertmanager", "labels": {"a": "b"}}},
        {"name": "a", "age": {"after": "720h"}},
    ],
    "spec.run": [
        {
            "dataset": {"uri": "s3://data/digits"},
            "train": {"job": {"template": {}}},
            "output": {"uri": "s3://models/digits", "format": {"name": "sklearn"}},
        },
        {
            "dataset": {"uri": "pvc://data/digits", "digest": "sha256:" + "0" * 64},
            "holdout": {"uri": "https://example.com/holdout"},
            "parameters": {"C": "10"},
            "seed": 7,
            "dataCheck": {"job": {"template": {}, "backoffLimit": 0}, "schema": {"columns": {}}},
            "train": {
                "resource": {"manifest": {"kind": "X"}, "success": "true", "failure": "false", "outputs": "object"},
                "timeout": "2h",
            },
            "evaluate": {"job": {"template": {}}, "gates": [{"name": "a", "min": "0.9"}]},
            "output": {"uri": "s3://models/digits", "format": {"name": "sklearn", "version": "1"}},
            "deadline": "3h",
        },
        {
            "dataset": {"uri": "s3://data/digits"},
            "train": {"resource": {"profile": "JobSet", "manifest": {"kind": "JobSet"}}},
            "output": {"uri": "s3://models/digits", "format": {"name": "sklearn"}},
        },
    ],
    "spec.gates.evaluation.metrics[]": [{"name": "a", "min": "0.9"}, {"name": "b", "minDelta": "0", "maxDelta": "1"}],
    "spec.analysis.metrics[]": [
        {"name": "a", "builtin": "error-rate", "margin": "0.02"},
        {"name": "a", "builtin": "latency-over", "threshold": "250ms", "margin": "0.1", "max": "0.5"},
        {"name": "b", "builtin": "latency-percentile", "percentile": "0.9", "max": "2"},
        {"name": "b", "builtin": "throughput", "min": "10", "failureLimit": 3},
        {"name": "c", "builtin": "agreement", "min": "0.95"},
        {"name": "c", "builtin": "relative-difference", "max": "2", "versus": "None"},
        {"name": "a", "prometheus": {"query": "up"}, "max": "3"},
        {"name": "d", "prometheus": {"bad": "lost", "total": "orders"}, "max": "0.3", "minSamples": 5},
        {"name": "d", "http": {"path": "/a", "value": "/b"}, "min": "-3", "max": "3"},
        {"name": "e", "job": {"template": {}, "value": "drift"}, "margin": "3"},
    ],
}


def _mostly(values: tuple[list[Any], list[Any]]) -> st.SearchStrategy[Any]:
    """One of the right values, rarely a wrong one: an object has many members, and one fault hides the others."""
    right, wrong = values
    return st.integers(0, 19).flatmap(lambda roll: st.sampled_from(wrong if roll == 19 else right))


EVIL: list[Any] = [
    0,
    -1,
    1.5,
    2**31,
    2**53 + 1,
    "",
    "a",
    "A",
    "a b",
    "ä",
    "a\n",
    "-a",
    "a.b",
    "a..b",
    "x" * 64,
    "ä" * 63,
    "ä" * 64,
    "x" * 254,
    "x" * 1025,
    "x" * 4097,
    True,
    False,
    [],
    {},
    ["a"],
    ["a", "a"],
    [{}],
    {"a": "b"},
    {"a": 1},
]


def _text(node: dict[str, Any], path: str) -> st.SearchStrategy[str]:
    for end, values in TEXTS.items():
        if path.endswith(f".{end}"):
            return _mostly(values)
    if "pattern" in node:
        longest = node["maxLength"]
        return st.from_regex(node["pattern"], fullmatch=True, alphabet=st.characters(max_codepoint=127)).filter(
            lambda text: len(text) <= longest
        )
    return st.text("abc-. é", min_size=node.get("minLength", 0), max_size=min(node["maxLength"], 12))


def _node(node: dict[str, Any], path: str) -> st.SearchStrategy[Any]:
    if node.get(INT_OR_STRING):
        return _mostly(QUANTITIES)
    if "enum" in node:
        return st.sampled_from(node["enum"])
    match node["type"]:
        case "string":
            return _text(node, path)
        case "integer":
            return st.integers(node["minimum"], node["maximum"]) | st.integers(node["minimum"], node["minimum"] + 3)
        case "boolean":
            return st.booleans()
        case "array":
            items = _node(node["items"], f"{path}[]")
            return st.lists(items, min_size=node.get("minItems", 0), max_size=min(node["maxItems"], 3))
    if "additionalProperties" in node:
        values = _node(node["additionalProperties"], f"{path}.*")
        return st.dictionaries(_mostly(KEYS), values, max_size=3)
    members = node.get("properties", {})
    required = {
        name: _node(child, f"{path}.{name}") for name, child in members.items() if name in node.get("required", ())
    }
    optional = {name: _node(child, f"{path}.{name}") for name, child in members.items() if name not in required}
    whole = st.fixed_dictionaries(required, optional=optional)
    if path in WHOLES:
        right = st.sampled_from(WHOLES[path])
        more = st.one_of([st.fixed_dictionaries({name: child}) for name, child in optional.items()])
        changed = st.tuples(right, more).map(lambda pair: {**pair[0], **pair[1]})
        return st.integers(0, 9).flatmap(lambda roll: whole if roll == 9 else changed if roll > 6 else right)
    if node.get(PRESERVE):
        extra = st.sampled_from([{}, {"x": 1}, {"y": {"z": [1, "a"]}}])
        return st.tuples(whole, extra).map(lambda pair: {**pair[1], **pair[0]})
    if {"number", "rollback"} <= members.keys():
        # Exactly one of them is needed.
        rest = {name: child for name, child in optional.items() if name not in ("number", "rollback")}
        sides = [
            st.fixed_dictionaries(required | {one: optional[one]}, optional=rest) for one in ("rollback", "number")
        ]
        return st.integers(0, 9).flatmap(lambda roll: whole if roll == 9 else sides[roll % 2])
    if "follow" in members:
        # Exactly one of them most of the time, else hardly any Model would be right.
        sources = [st.fixed_dictionaries({name: child}) for name, child in optional.items()]
        return st.one_of(*sources, *sources, whole)
    return whole


@cache
def _spec(kind: Any) -> st.SearchStrategy[Any]:
    return _node(build_schema(kind)["properties"]["spec"], "spec")


def _places(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [at] if at else []
    if isinstance(value, dict):
        for key, child in value.items():
            found += _places(child, (*at, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            found += _places(child, (*at, index))
    return found


@st.composite
def specs(draw: st.DrawFn, kind: Any) -> dict[str, Any]:
    """A spec of `kind`: drawn from its schema, and half of the time spoilt in one place."""
    spec = copy.deepcopy(draw(_spec(kind)))
    if draw(st.booleans()):
        return spec
    places = _places(spec)
    if not places:
        return spec
    *above, last = draw(st.sampled_from(places))
    holder: Any = spec
    for part in above:
        holder = holder[part]
    match draw(st.sampled_from(["replace", "replace", "remove", "unknown", "double"])):
        case "replace":
            holder[last] = copy.deepcopy(draw(st.sampled_from(EVIL)))
        case "remove":
            del holder[last]
        case "unknown" if isinstance(holder, dict):
            holder["noSuchField"] = "x"
        case "double" if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
    return spec


def whole(kind: Any, spec: dict[str, Any], name: str = "drawn") -> dict[str, Any]:
    """The object of `kind` with this spec."""
    metadata = {"name": name}
    if kind.__crd__.namespaced:
        metadata["namespace"] = "default"
    return {"apiVersion": API_VERSION, "kind": kind.__name__, "metadata": metadata, "spec": spec}
