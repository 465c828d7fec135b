"""What comes over the wire is split and measured before it becomes trees: what is too large never does."""

import json
import tracemalloc
from typing import Any

import pytest

from modelwright.api.common import TOO_LARGE_KEY, InvalidObject
from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.kube import codec, kinds, raw_objects
from modelwright.kube.store import NAMESPACE_BYTES, Store
from tests.lib.objects import version

NS = "vision"
SMALLEST: dict[str, Any] = {"a": [[] for _ in range(29_000)]}
"""Lists without members: JSON of three bytes that takes sixty-four in Python."""


def fat(name: str = "fat", samples: int = 16, body: Any = SMALLEST) -> bytes:
    obj = version(NS, name)
    obj["metadata"] |= {"uid": f"uid-{name}", "resourceVersion": "7", "generation": 1, "labels": {"a": "b"}}
    obj["status"] = {"conditions": [{"type": "Ready", "status": "False"}]}
    obj["spec"]["samples"] = [{"request": body}] * samples
    return json.dumps(obj, separators=(",", ":")).encode()


def test_an_object_too_large_in_memory_keeps_metadata_and_status() -> None:
    found = raw_objects.parse_object(kinds.MODEL_VERSION, fat())
    assert found["metadata"]["uid"] == "uid-fat"
    assert found["status"]["conditions"][0]["type"] == "Ready"
    assert "spec" not in found
    with pytest.raises(InvalidObject, match="its values would take about"):
        ModelVersion.parse(found)


def test_an_object_at_the_bound_takes_no_more_than_16_mib_and_one_beyond_it_hardly_anything() -> None:
    whole, beyond = fat(samples=3), fat(samples=16)
    assert raw_objects.estimate_memory(whole) <= raw_objects.OBJECT_MEMORY_BYTES < raw_objects.estimate_memory(beyond)
    for raw, bound in ((whole, 16 << 20), (beyond, 3 << 20)):
        tracemalloc.start()
        found = raw_objects.parse_object(kinds.MODEL_VERSION, raw)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < bound, found.keys()


@pytest.mark.parametrize(
    "unit",
    ["[]", "{}", "[0]", '{"a":0}', '""', '"ab"', '"\u00e9"', "0.123", "1234", '{"a":{"a":{"a":0}}}', '"a\U0001f600"'],
)
def test_the_weight_is_no_less_than_what_the_values_take(unit: str) -> None:
    raw = ("[" + ",".join([unit] * 50_000) + "]").encode()
    tracemalloc.start()
    value = codec.loads(raw)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(value) == 50_000
    assert taken <= raw_objects.estimate_memory(raw)


def test_a_sample_that_is_a_picture_is_read() -> None:
    """224 x 224 x 3 numbers: what a well-behaved user sends, up to what the infra gate takes."""
    picture = {"data": [round(n * 0.000123 % 1, 3) for n in range(150_528)]}
    found = raw_objects.parse_object(kinds.MODEL_VERSION, fat(samples=1, body=picture))
    assert len(found["spec"]["samples"][0]["request"]["data"]) == 150_528


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_managed_fields_are_dropped_and_similar_texts_stay(separators: tuple[str, str]) -> None:
    obj = version(NS, "v1")
    text = '"managedFields":[]'
    obj["metadata"] |= {"annotations": {"a": text, "b": "[]"}, "managedFields": [], "uid": "u", "resourceVersion": "1"}
    found = raw_objects.parse_object(kinds.MODEL_VERSION, json.dumps(obj, separators=separators).encode())
    assert found["metadata"]["annotations"] == {"a": text, "b": "[]"}
    assert "managedFields" not in found["metadata"]
    managed = [{"manager": "x", "fieldsV1": {f"f:{n}": [] for n in range(200_000)}}]
    obj["metadata"]["managedFields"] = managed
    assert "spec" in raw_objects.parse_object(kinds.MODEL_VERSION, json.dumps(obj, separators=separators).encode())


def test_an_object_nested_as_deep_as_go_reads_is_measured() -> None:
    raw = fat(samples=1, body={"a": 0}).replace(b'{"a":0}', b'{"a":' + b"[" * 900 + b"]" * 900 + b"}")
    assert raw_objects.parse_object(kinds.MODEL_VERSION, raw)["metadata"]["name"] == "fat"


async def test_a_page_with_too_many_bytes_is_asked_for_in_parts() -> None:
    objects = [fat(f"v{n}") for n in range(30)]
    asked = []

    async def ask(limit: int, token: str) -> bytes:
        start = int(token or 0)
        asked.append(limit)
        part = b",".join(objects[start : start + limit])
        if len(part) > raw_objects.PAGE_BYTES:
            raise raw_objects.ResponseTooLarge
        rest = str(start + limit) if start + limit < len(objects) else ""
        return b'{"metadata":{"resourceVersion":"9","continue":"%s"},"items":[%s]}' % (rest.encode(), part)

    found = [raw async for page in raw_objects.read_pages(ask, 100) for raw in page.items]
    assert [raw_objects.parse_identity(kinds.MODEL_VERSION, raw)["metadata"]["name"] for raw in found] == [
        f"v{n}" for n in range(30)
    ]
    assert len(asked) < 60


async def test_one_object_that_no_page_can_hold_is_refused() -> None:
    async def ask(limit: int, token: str) -> bytes:
        raise raw_objects.ResponseTooLarge

    with pytest.raises(raw_objects.ResponseTooLarge):
        [page async for page in raw_objects.read_pages(ask, 100)]


def taken(store: Store, raw: bytes, kind: kinds.Kind = kinds.MODEL_VERSION) -> None:
    store.apply(kind, None, raw_objects.parse_object(kind, raw))


def test_one_namespace_fills_the_store_to_a_bound_and_leaves_room_to_others() -> None:
    store, text = Store(), {"a": "x" * (1 << 20)}
    for number in range(NAMESPACE_BYTES // (1 << 20) + 10):
        taken(store, fat(f"v{number}", samples=1, body=text))
    refused = [obj for obj in store.list(kinds.MODEL_VERSION, NS) if TOO_LARGE_KEY in obj]
    assert 10 <= len(refused) <= 12
    assert "has no room for it" in refused[0][TOO_LARGE_KEY]
    store.apply(
        kinds.MODEL_VERSION,
        None,
        {
            **version("other", "v1"),
            "metadata": {"name": "v1", "namespace": "other", "uid": "o", "resourceVersion": "1"},
        },
    )
    assert TOO_LARGE_KEY not in (store.get(kinds.MODEL_VERSION, "other", "v1") or {})
    store.forget(kinds.MODEL_VERSION, NS, "v0", "uid-v0")
    taken(store, fat("later", samples=1, body=text))
    assert TOO_LARGE_KEY not in (store.get(kinds.MODEL_VERSION, NS, "later") or {})


def test_a_too_large_child_is_hidden_and_known_to_the_resync() -> None:
    store, changes = Store(), []
    store.subscribe(lambda *change: changes.append(change))
    raw = fat().replace(b'"labels":{', b'"labels":{"modelwright.dev/model":"digits",')
    taken(store, raw, kinds.DEPLOYMENT)
    assert store.get(kinds.DEPLOYMENT, NS, "fat") is None
    assert store.list(kinds.DEPLOYMENT) == store.by_model(kinds.DEPLOYMENT, NS, "digits") == []
    assert changes == []
    known = store.identity_of(kinds.DEPLOYMENT, (NS, "fat"))
    assert known is not None
    assert known.uid == "uid-fat"
