"""Payloads of webhooks."""

from __future__ import annotations

from modelwright.api.v1alpha1.retraining import WebhookTrigger

HOOKS = [
    WebhookTrigger.model_validate({"source": source, "labels": {"model": "fraud"}})
    for source in ("Alertmanager", "CloudEvents")
]
