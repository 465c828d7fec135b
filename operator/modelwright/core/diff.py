"""Detection of a live object's differences from its manifest, comparing only the fields that we set."""

from typing import Any


def differs(wanted: Any, live: Any) -> bool:
    """Return whether `live` lacks or contradicts a field of `wanted`.

    Fields that only `live` has belong to others (defaults of the API server, other managers) and don't count. Lists are
    compared item by item, because all lists that we render are atomic or wholly ours. An empty wanted value equals
    an absent one, since the API server drops empty maps and lists. Quantities are compared by their numeric value.
    """
    # Most parts are equal, and this comparison is the fastest: it runs for each child in every reconciliation.
    if wanted == live:
        return False
    if isinstance(wanted, dict):
        if not wanted:
            return bool(live)
        if not isinstance(live, dict):
            return True
        return any(differs(value, live.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        live = live or []
        if not isinstance(live, list) or len(wanted) != len(live):
            return True
        return any(differs(*pair) for pair in zip(wanted, live, strict=True))
    if wanted is None or live is None:
        return bool(wanted) or bool(live)
    return parse_quantity(wanted) is None or parse_quantity(wanted) != parse_quantity(live)


_SUFFIXES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
    "Ei": 2.0**60,
}


def parse_quantity(value: Any) -> float | None:
    """Parse a Kubernetes quantity; None for anything else. The API server rewrites "0.5" as "500m"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, str):
        return None
    digits = value.rstrip("numkKMGTPEi")
    factor = _SUFFIXES.get(value[len(digits) :])
    try:
        return None if factor is None else round(float(digits) * factor, 9)
    except ValueError:
        return None
