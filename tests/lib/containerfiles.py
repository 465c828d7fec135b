"""Where the Containerfiles lie."""

from __future__ import annotations

IMAGES = ("datacheck", "fetch", "mlserver", "operator", "trainer")
