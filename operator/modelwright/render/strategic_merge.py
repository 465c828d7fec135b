"""Strategic merge patch of a pod template, as the API server applies it.

Merge keys are those of Kubernetes' own types (`patchMergeKey` in core/v1, 1.34). A null deletes a field; in a keyed
list `$patch: delete` deletes the entry; in a map it deletes the map, and `$patch: replace` replaces it (client-side
`kubectl apply` drops nulls); every list that isn't keyed here is replaced.
Source: sig-api-machinery, strategic-merge-patch.md.
"""

from typing import Any

Json = Any

_MERGE_KEYS: dict[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
}


class MergeError(ValueError):
    """A patch that cannot be merged; the message starts with the path of the offending field."""


def strategic_merge(base: Json, patch: Json, path: str = "") -> Json:
    """Return `base` with `patch` merged into it; neither is modified. Raises MergeError naming the field below
    `path`."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(base, dict):
        base = {}
    merged = dict(base)
    for key, value in patch.items():
        field_path = f"{path}.{key}" if path else key
        if key.startswith("$"):
            raise MergeError(
                f"{field_path}: the directive {key} is not understood; $patch: delete and $patch: replace are"
            )
        directive = value.get("$patch") if isinstance(value, dict) else None
        if directive not in (None, "delete", "replace"):
            raise MergeError(f"{field_path}.$patch: only delete and replace are understood, not {directive}")
        if value is None or directive == "delete":
            merged.pop(key, None)
        elif directive == "replace":
            merged[key] = {name: item for name, item in value.items() if name != "$patch"}
        elif isinstance(value, list) and key in _MERGE_KEYS:
            merged[key] = _merge_list(merged.get(key) or [], value, _MERGE_KEYS[key], field_path)
        elif isinstance(value, dict):
            merged[key] = strategic_merge(merged.get(key), value, field_path)
        else:
            merged[key] = value
    return merged


def _merge_list(base: list[Json], patch: list[Json], key: str, path: str) -> list[Json]:
    merged = list(base)
    for index, entry in enumerate(patch):
        entry_path = f"{path}[{index}]"
        if not isinstance(entry, dict) or entry.get(key) is None:
            raise MergeError(f"{entry_path}: an entry needs its key {key}")
        entry = dict(entry)
        directive = entry.pop("$patch", None)
        if directive not in (None, "delete"):
            raise MergeError(f"{entry_path}.$patch: only delete is understood, not {directive}")
        at = next((i for i, item in enumerate(merged) if item.get(key) == entry[key]), None)
        if directive == "delete":
            if at is not None:
                merged.pop(at)
        elif at is None:
            merged.append(strategic_merge({}, entry, entry_path))
        else:
            merged[at] = strategic_merge(merged[at], entry, entry_path)
    return merged
