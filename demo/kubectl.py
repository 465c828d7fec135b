"""kubectl for the demo and the end-to-end tests, with an explanation when a wait fails."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.console import DemoError

Json = dict[str, Any]


class KubectlError(DemoError):
    """kubectl failed; the text is the command and its output."""


class TimedOut(DemoError):
    """An object did not reach the expected state; the text holds its conditions, pods and events."""


@dataclass(frozen=True)
class Kubectl:
    """One cluster with an administrator's rights."""

    binary: Path
    kubeconfig: Path

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Return the standard output of a command. Raises KubectlError."""
        command = [str(self.binary), "--kubeconfig", str(self.kubeconfig), *arguments]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False, env=_environment()
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"kubectl {' '.join(arguments)} did not end within {timeout:g} s") from error
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def apply(self, *objects: Json | Path, server_side: bool = False, force: bool = False) -> str:
        """Apply objects and files, as a user would. Raises KubectlError with the API server's message."""
        text = "\n---\n".join(obj.read_text() if isinstance(obj, Path) else json.dumps(obj) for obj in objects)
        flags = [*(["--server-side"] if server_side else []), *(["--force-conflicts"] if force else [])]
        return self.run("apply", "-f", "-", *flags, stdin=text)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Json | None:
        """Return the object, or None when it does not exist. ``kind`` may include its group:
        ``models.modelwright.dev``."""
        text = self.run("get", kind, name, *_namespace_flags(namespace), "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def items(self, kind: str, namespace: str | None = None, labels: str | None = None) -> Sequence[Json]:
        where = _namespace_flags(namespace) or ["--all-namespaces"]
        selector = ["-l", labels] if labels else []
        items: Sequence[Json] = json.loads(self.run("get", kind, *where, *selector, "-o", "json"))["items"]
        return items

    def delete(self, kind: str, name: str, namespace: str | None = None, *, wait: bool = False) -> None:
        self.run(
            "delete", kind, name, *_namespace_flags(namespace), "--ignore-not-found", f"--wait={str(wait).lower()}"
        )

    def patch(self, kind: str, name: str, namespace: str | None, change: Json) -> None:
        """Apply a JSON merge patch."""
        self.run("patch", kind, name, *_namespace_flags(namespace), "--type", "merge", "-p", json.dumps(change))

    def wait(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        done: Callable[[Json], bool],
        what: str,
        *,
        timeout: float,
        every: float = 0.5,
        tell: Callable[[str], None] | None = None,
        failed: Callable[[Json], bool] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Json:
        """Wait until ``done`` holds for the object, passing each new state to ``tell``.

        Raises TimedOut, at once when ``failed``. ``timeout`` and ``every`` are seconds; ``meanwhile`` is called
        at every poll.
        """
        deadline, last_state = time.monotonic() + timeout, ""
        while True:
            obj = self.get(kind, name, namespace)
            if obj is not None:
                state = headline(obj)
                if tell and state and state != last_state:
                    last_state = state
                    tell(state)
                if done(obj):
                    return obj
                if failed and failed(obj):
                    raise TimedOut(f"{kind} {name}: {what} can't be reached.\n{self.explain(obj)}")
            if time.monotonic() > deadline:
                explanation = self.explain(obj) if obj else "There is no such object."
                raise TimedOut(f"{kind} {name}: {what} was not reached within {timeout:g} s.\n{explanation}")
            meanwhile()
            time.sleep(every)

    def explain(self, obj: Json) -> str:
        """Describe the conditions of an object, and the pods and events of its namespace that carry its name."""
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")
        lines = [f"{obj['kind']} {name}, generation {obj['metadata'].get('generation', '?')}:"]
        lines += [f"  {condition_line(condition)}" for condition in conditions(obj).values()]
        if failure := obj.get("status", {}).get("failure"):
            lines.append(f"  failure: {json.dumps(failure)}")
        if namespace:
            lines += [f"  {line}" for line in self._pods(namespace, name)]
            lines += [f"  {line}" for line in self._events(namespace, name)]
        return "\n".join(lines)

    def _pods(self, namespace: str, name: str) -> list[str]:
        lines = []
        for pod in self.items("pods", namespace):
            if not pod["metadata"]["name"].startswith(name):
                continue
            states = []
            status = pod.get("status", {})
            for container in status.get("initContainerStatuses", []) + status.get("containerStatuses", []):
                for state, detail in container["state"].items():
                    why = " ".join(str(detail[key]) for key in ("reason", "exitCode", "message") if key in detail)
                    states.append(f"{container['name']}: {state} {why}".strip())
            lines.append(f"pod {pod['metadata']['name']}: {status.get('phase')} ({'; '.join(states)})")
        return lines

    def _events(self, namespace: str, name: str, most: int = 12) -> list[str]:
        events = [
            event
            for event in self.items("events.events.k8s.io", namespace)
            if event.get("regarding", {}).get("name", "").startswith(name)
        ]
        events.sort(key=lambda event: event.get("eventTime") or event.get("deprecatedLastTimestamp") or "")
        return [
            f"event {event['regarding']['kind']}/{event['regarding']['name']}: "
            f"{event.get('type')} {event.get('reason')}: {event.get('note', '')}"
            for event in events[-most:]
        ]


def _environment() -> Mapping[str, str]:
    # A proxy of the host must never stand between kubectl and a cluster on this machine.
    return {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


def _namespace_flags(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


def conditions(obj: Json) -> dict[str, Json]:
    return {condition["type"]: condition for condition in obj.get("status", {}).get("conditions", [])}


def condition_line(condition: Json) -> str:
    return f"{condition['type']}={condition['status']} {condition.get('reason', '')}: {condition.get('message', '')}"


def headline(obj: Json) -> str:
    """Return the most important condition of an object in one line; empty without conditions."""
    known_conditions = conditions(obj)
    for name in ("Stalled", "Reconciling"):
        if known_conditions.get(name, {}).get("status") == "True":
            return f"{known_conditions[name]['reason']}: {known_conditions[name]['message']}"
    return (
        f"{known_conditions['Ready']['reason']}: {known_conditions['Ready']['message']}"
        if "Ready" in known_conditions
        else ""
    )


def is_true(obj: Json, condition: str, *, current: bool = True) -> bool:
    """Return whether the condition is True and, if ``current``, describes the object's current generation."""
    entry = conditions(obj).get(condition, {})
    status = obj.get("status", {})
    observed_generation = status.get("observedGeneration", entry.get("observedGeneration"))
    return entry.get("status") == "True" and (not current or observed_generation == obj["metadata"]["generation"])


def is_ready(obj: Json) -> bool:
    return is_true(obj, "Ready")


def is_stalled(obj: Json) -> bool:
    return is_true(obj, "Stalled")
