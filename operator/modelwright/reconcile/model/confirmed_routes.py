"""Remembers which route states the gateway was confirmed to follow, so that each is probed once."""

from typing import Any

from modelwright.api.conditions import is_true
from modelwright.api.v1alpha1.model import Model
from modelwright.kube import kinds
from modelwright.kube.store import Store
from modelwright.reconcile.model.observed_routing import route_state
from modelwright.reconcile.model.snapshot import ModelSnapshot
from modelwright.render import routes

Object = dict[str, Any]


class ConfirmedRoutes:
    """The confirmed route state of each Model, by its uid."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._states: dict[str, str] = {}

    def confirmed_state(self, model: Model) -> str | None:
        """The state remembered; after a restart of the operator, that of the live route of a Model that is ready."""
        known, status = self._states.get(model.uid), model.status
        if known is not None or status.observed_generation != model.generation:
            return known
        if not is_true(status.conditions, "Ready"):
            return None
        route = self._live_route(model)
        return route_state(route) if route is not None else None

    def remember(self, snapshot: ModelSnapshot) -> None:
        """Remember the state of the snapshot's route, if it is confirmed."""
        route = snapshot.routing.objects.route
        if snapshot.observation.traffic.confirmed and route is not None:
            self._states[snapshot.model.uid] = route_state(route)

    def carry_over(self, before: ModelSnapshot) -> None:
        """Confirm the next generation of a confirmed route where only copies for the drift monitor differ: users
        get the same answers by both."""
        old, new = before.routing.objects.route, self._live_route(before.model)
        if not before.observation.traffic.confirmed or old is None or new is None:
            return
        old_generation, new_generation = (route["metadata"].get("generation", 0) for route in (old, new))
        name = before.model.name
        is_next = new_generation == old_generation + 1
        if is_next and routes.hash_for_callers(old, name) == routes.hash_for_callers(new, name):
            self._states[before.model.uid] = route_state(new)

    def forget(self, uid: str) -> None:
        """Forget a Model that is gone."""
        self._states.pop(uid, None)

    def _live_route(self, model: Model) -> Object | None:
        grpc = model.spec.endpoint is not None and model.spec.endpoint.protocol == "GRPC"
        return self._store.get(kinds.GRPC_ROUTE if grpc else kinds.HTTP_ROUTE, model.namespace, model.name)
