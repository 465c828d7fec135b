"""Request paths of the inference protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_OPENAI: Final = (("messages", "chat/completions"), ("prompt", "completions"), ("input", "embeddings"))


def request_path(protocol: str, model: str, request: Mapping[str, Any]) -> str | None:
    """Return the path of a request by this protocol; None when it isn't known."""
    if protocol == "V2":
        return f"/v2/models/{model}/infer"
    if protocol == "TensorFlow":
        return f"/v1/models/{model}:predict"
    if protocol == "OpenAI":
        return next((f"/v1/{end}" for member, end in _OPENAI if member in request), None)
    return None
