"""Renders and reads the Services of a Model and of its revisions."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.api import names
from modelwright.core.revision import Revision
from modelwright.core.rollout.traffic_split import TrafficSplit
from modelwright.render.child_metadata import child_metadata

Json = dict[str, Any]


def model_service(
    model: Json, routing: TrafficSplit, ports: Mapping[str, Mapping[str, int]], live: Json | None
) -> Json:
    """Render the stable Service of a Model, which selects the one revision inside, or all of the routing's, weighted by
    their pods.

    `ports` by revision hash. `live`: the current Service; surplus members of its selector are removed.
    """
    name = model["metadata"]["name"]
    if routing.service_revision is not None:
        selector = names.revision_selector(name, routing.service_revision.hash)
        served: Mapping[str, int | str] = ports[routing.service_revision.hash]
    else:
        selector = {names.LABEL_MODEL: names.label_value(name), names.LABEL_ROLE: names.ROLE_SERVING}
        served = _common_ports([ports[key] for key in routing.weights])
    surplus = dict.fromkeys((live or {}).get("spec", {}).get("selector", {}).keys() - selector.keys())
    return _render_service(model, None, name, {**selector, **surplus}, served)


def revision_service(model: Json, revision: Revision, ports: Mapping[str, int]) -> Json:
    """Render the Service of one revision, which a gateway's route names."""
    name = model["metadata"]["name"]
    selector = names.revision_selector(name, revision.hash)
    return _render_service(model, revision, names.revision_name(name, revision.hash), selector, ports)


def selected_revision(service: Mapping[str, Any]) -> str | None:
    """Return the revision hash that a Model's Service selects, None when it selects all of them or none."""
    chosen = service["spec"].get("selector", {}).get(names.LABEL_REVISION)
    return chosen if isinstance(chosen, str) else None


def selects_all(service: Mapping[str, Any]) -> bool:
    """Return whether a Model's Service selects the pods of every revision."""
    selector = service["spec"].get("selector", {})
    return names.LABEL_MODEL in selector and names.LABEL_REVISION not in selector


def _common_ports(ports: Sequence[Mapping[str, int]]) -> Mapping[str, int | str]:
    """Return the ports that several revisions have in common: numbers where they agree, else the names of container
    ports, which each pod resolves itself."""
    shared = [key for key in ports[0] if all(key in other for other in ports)]
    return {key: ports[0][key] if len({other[key] for other in ports}) == 1 else key for key in shared}


def _render_service(
    model: Json, owner: Revision | None, name: str, selector: Mapping[str, str | None], ports: Mapping[str, int | str]
) -> Json:
    entries = [{"name": "http", "port": 80, "targetPort": ports["http"], "protocol": "TCP"}]
    if "grpc" in ports:
        grpc = {"name": "grpc", "port": 81, "targetPort": ports["grpc"], "protocol": "TCP"}
        entries.append({**grpc, "appProtocol": "kubernetes.io/h2c"})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(model, owner, name),
        "spec": {"selector": dict(selector), "ports": entries},
    }
