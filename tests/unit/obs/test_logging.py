"""Every log line is one JSON object, from any writer and with any content."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from modelwright.obs import logging as json_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    json_logging.configure_logging("INFO", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_message_and_fields(stream: io.StringIO) -> None:
    logging.getLogger("modelwright.x").info("a %s", "message", extra={"kind": "Model", "object": "digits", "n": 3})
    [line] = lines(stream)
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "modelwright.x",
        "message": "a message",
        "kind": "Model",
        "object": "digits",
        "n": 3,
    }


def test_a_traceback_stays_on_its_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("x").exception("failed")
    [line] = lines(stream)
    assert "ValueError: two\nlines" in str(line["exception"])


def test_kopfs_object_becomes_fields_without_its_settings(stream: io.StringIO) -> None:
    extra = {"settings": object(), "k8s_skip": True, "k8s_ref": {"kind": "Model", "namespace": "ns", "name": "a"}}
    logging.getLogger("kopf.others").warning("something", extra=extra)
    [line] = lines(stream)
    assert (line["kind"], line["namespace"], line["object"]) == ("Model", "ns", "a")
    assert "settings" not in line


def test_what_json_does_not_know_is_written_as_text(stream: io.StringIO) -> None:
    logging.getLogger("x").info("odd", extra={"value": {1, 2}.__class__})
    assert lines(stream)[0]["value"] == "<class 'set'>"


def test_warnings_are_json_too(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    assert "old ways" in str(lines(stream)[0]["message"])


def test_kopf_is_never_at_debug_because_it_shows_whole_bodies(stream: io.StringIO) -> None:
    json_logging.configure_logging("DEBUG", stream)
    logging.getLogger("kopf.objects").debug("a body with a secret")
    logging.getLogger("modelwright.x").debug("ours")
    assert [line["message"] for line in lines(stream)] == ["ours"]
