"""The metrics servers of the operator's configuration, by the names of their connections."""

from __future__ import annotations

from dataclasses import dataclass

from modelwright.api.reasons import Reason
from modelwright.measurement.connections import Connection, Connections, ConnectionType
from modelwright.measurement.json_client import JsonClient, MeasurementError
from modelwright.measurement.prometheus import PrometheusClient

DEFAULT_CONNECTION = "default"
"""The Prometheus connection that builtin metrics are read from."""


@dataclass(frozen=True, slots=True)
class MetricsServers:
    """The configured servers, and the HTTP client that all requests go through."""

    connections: Connections
    client: JsonClient

    def connect_prometheus(self, namespace: str, name: str = DEFAULT_CONNECTION) -> PrometheusClient:
        """Build a client of the Prometheus connection `name`. Raises MeasurementError as `find_connection` does."""
        return PrometheusClient(self.client, find_connection(self.connections, name, "Prometheus", namespace))


def find_connection(connections: Connections, name: str, kind: ConnectionType, namespace: str) -> Connection:
    """Find the connection of this name and type, as it is used for objects of a namespace.

    Raises MeasurementError, permanent, when the configuration has none.
    """
    connection = connections.get(name)
    if connection is None or connection.type != kind:
        known = sorted(key for key, one in connections.items() if one.type == kind)
        have = f"it has {', '.join(known)}" if known else "it has none of that type"
        message = f"the operator's configuration has no {kind} connection called {name}; {have}"
        raise MeasurementError(Reason.CONNECTION_UNKNOWN, message, permanent=True)
    return connection.for_namespace(namespace)
