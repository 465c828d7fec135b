"""Removes secrets from text before it is written anywhere. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MASK = "***"
_SECRET_PATTERNS = (
    # user:password@ in any URL; an '@' after the first slash (hf://a/b@rev, oci://r/n@sha256:...) is not one
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@\"'<>]+@"), rf"\1{_MASK}@"),
    # a query string can be a signature: X-Amz-Signature, sig, Signature, token
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s?\"'<>]*)\?[^\s\"'<>)\]]+"), rf"\1?{_MASK}"),
    (re.compile(r"(?i)\b(bearer|basic|sharedkey|negotiate)\s+[A-Za-z0-9+/=._~:-]{6,}"), rf"\1 {_MASK}"),
    (re.compile(r"(?i)\b(AWS4-HMAC-SHA256)\b[^\n\"]*"), rf"\1 {_MASK}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), _MASK),
)


class Redactor:
    """Replaces known secret values, and everything that looks like one, by `***`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: list[str] = []
        for secret in secrets:
            self.add_secret(secret)

    def add_secret(self, secret: str) -> None:
        """Add a value that must not be printed; each line of a multi-line value counts."""
        for value in {secret, secret.strip(), *(line.strip() for line in secret.splitlines())}:
            if len(value) >= 4 and value not in self._secrets:
                self._secrets.append(value)
        self._secrets.sort(key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        for pattern, replacement in _SECRET_PATTERNS:
            text = pattern.sub(replacement, text)
        return text
