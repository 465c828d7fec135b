"""Handlers of verbs that need no Model: installed versions and the meaning of reasons."""

from __future__ import annotations

import difflib
import json
from typing import Any, Final

from modelwright import VERSION
from modelwright.api.names import GROUP
from modelwright.cli.commands.command_support import Options
from modelwright.cli.kubectl import Forbidden, KubectlClient
from modelwright.cli.printing import print_text
from modelwright.cli.user_error import UserError

_APP_LABEL: Final = "app.kubernetes.io"
_OPERATOR_SELECTOR = f"{_APP_LABEL}/name=modelwright,{_APP_LABEL}/component=operator"
_CRD_SELECTOR = f"{_APP_LABEL}/name=modelwright,{_APP_LABEL}/component=crds"
Json = dict[str, Any]


def version(options: Options, kubectl: KubectlClient) -> int:
    """Print the versions of this program, the operators, the CRDs and their images."""
    versions: Json = {"client": VERSION}
    if options.client:
        _print_versions(options, versions)
        return 0
    hidden: list[str] = []
    try:
        versions["crds"] = _summarize_crds(
            _list_if_allowed(kubectl, hidden, "CRDs", "customresourcedefinitions", "-l", _CRD_SELECTOR)
        )
        versions["operators"] = [
            _summarize_operator(deployment)
            for deployment in _list_if_allowed(
                kubectl, hidden, "operator", "deployments.apps", "-A", "-l", _OPERATOR_SELECTOR
            )
        ]
    except UserError:
        _print_versions(options, {"client": VERSION})
        raise
    versions["hidden"] = hidden
    _print_versions(options, versions)
    return 0


def explain(options: Options, _: KubectlClient) -> int:
    """Print the meaning of one reason of a condition, failure or event, or of all reasons."""
    from modelwright.api.reasons import Reason

    reasons = {str(reason): reason.doc for reason in Reason}
    if options.reason is None:
        shown = reasons
    else:
        by_case = {name.lower(): name for name in reasons}
        name = by_case.get(options.reason.lower())
        if name is None:
            near = difflib.get_close_matches(options.reason.lower(), by_case, n=3, cutoff=0.6)
            meant = f" Did you mean {', '.join(by_case[each] for each in near)}?" if near else ""
            raise UserError(f"there is no reason {options.reason}.{meant}")
        shown = {name: reasons[name]}
    if options.output == "json":
        print_text(json.dumps(shown, indent=2))
    else:
        print_text("\n".join(f"{name}: {text}" for name, text in shown.items()))
    return 0


def _print_versions(options: Options, versions: Json) -> None:
    if options.output == "json":
        print_text(json.dumps(versions, indent=2))
        return
    rows = [("client", versions["client"])]
    if "crds" in versions and "CRDs" not in versions["hidden"]:
        crds = versions["crds"]
        missing = f"; missing: {', '.join(crds['missing'])}" if crds["missing"] else ""
        rows.append(("CRDs", f"{crds['found']} kinds, {', '.join(crds['versions']) or 'none installed'}{missing}"))
    for each in versions.get("operators", ()):
        place = f"{each['namespace']}/{each['name']}, {each['ready']} of {each['replicas']} pods ready"
        rows.append(("operator", f"{each['version'] or 'unknown version'}, {place}"))
        rows += [("image", f"{what} {image}") for what, image in each["images"].items()]
    if "operators" in versions and not versions["operators"] and "operator" not in versions["hidden"]:
        rows.append(("operator", "none found"))
    rows += [(what, "you may not list it") for what in versions.get("hidden", ())]
    print_text("\n".join(f"{what:<8}  {text}" for what, text in rows))


def _list_if_allowed(kubectl: KubectlClient, hidden: list[str], label: str, *arguments: str) -> list[Json]:
    try:
        items: list[Json] = json.loads(kubectl.run("get", *arguments, "-o", "json"))["items"]
    except Forbidden:
        hidden.append(label)
        return []
    return items


def _summarize_crds(crds: list[Json]) -> Json:
    from modelwright.api.crd.definition import KINDS

    ours = {crd["spec"]["names"]["plural"]: crd for crd in crds if crd["spec"]["group"] == GROUP}
    served = {each["name"] for crd in ours.values() for each in crd["spec"]["versions"] if each["served"]}
    missing = [kind.__crd__.plural for kind in KINDS if kind.__crd__.plural not in ours] if ours else []
    return {"found": len(ours), "versions": sorted(served), "missing": missing}


def _summarize_operator(deployment: Json) -> Json:
    metadata, spec = deployment["metadata"], deployment["spec"]
    (container, *_) = spec["template"]["spec"]["containers"]
    images = {"operator": container["image"]}
    for entry in container.get("env") or ():
        name = str(entry["name"])
        if name.endswith("_IMAGE") and entry.get("value") not in (None, "", *images.values()):
            images[name.removeprefix("MODELWRIGHT_").removesuffix("_IMAGE").lower()] = entry["value"]
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "version": (metadata.get("labels") or {}).get(f"{_APP_LABEL}/version", ""),
        "replicas": spec.get("replicas", 1),
        "ready": (deployment.get("status") or {}).get("readyReplicas", 0),
        "images": images,
    }
