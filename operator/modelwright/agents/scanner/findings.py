"""Findings of a scan, and the report of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

MAX_FINDINGS = 10_000


@dataclass
class Findings:
    """Findings by their consequence: `code` fails the gate, `unknown` makes it inconclusive."""

    files: int = 0
    size: int = 0
    names: set[str] = field(default_factory=set)
    allowed: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    tensors: set[str] = field(default_factory=set)
    """Files that a graph beside them declares as its tensors: plain numbers, unless known otherwise."""

    def add_code(self, path: str, text: str) -> None:
        """Add content that would run and that no rule allows."""
        _append_text(self.code, f"{path} {text}")

    def add_unknown(self, path: str, why: str) -> None:
        """Add content that can't be classified."""
        _append_text(self.unknown, f"{path} {why}")

    def build_report(self) -> dict[str, Any]:
        """Build the gate's report. Failures come first; the log has all findings."""
        outcome, reason = ("Pass", "GatePassed")
        if self.code:
            outcome, reason = "Fail", "CodeNotAllowed"
        elif self.unknown:
            outcome, reason = "Inconclusive", "ContentUnknown"
        read = f"{self.files} files, {self.size} bytes, {len(self.names)} imported names"
        parts = [read, *(f"allowed unread: {path}" for path in self.allowed[:5])]
        parts += [*(f"code: {text}" for text in self.code), *(f"unknown: {text}" for text in self.unknown)]
        if not self.code and not self.unknown:
            parts.append("nothing that would run without being allowed")
        return {"outcome": outcome, "reason": reason, "message": "; ".join(parts)}

    def log_lines(self) -> list[str]:
        """Return each finding as a line for the log."""
        findings = [("code", text) for text in self.code] + [("unknown", text) for text in self.unknown]
        findings += [("allowed", path) for path in self.allowed] + [("imports", name) for name in sorted(self.names)]
        return [json.dumps({"finding": kind, "what": text}) for kind, text in findings]


def _append_text(to: list[str], text: str) -> None:
    if len(to) < MAX_FINDINGS and text not in to[-50:]:
        to.append(text[:500])
