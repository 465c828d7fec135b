"""A namespace that retrains: a Model that follows, a policy whose stages are small scripts, and the runs of it."""

from __future__ import annotations

import json
from typing import Any

from demo.kubectl import Json
from demo.platform import SECRET
from tests.e2e.lib.space import API, MODELS, Space, eventually

RUNS = "trainingruns.modelwright.dev"
POLICIES = "retrainingpolicies.modelwright.dev"

CHECK = """
import json, os, pathlib
rows = json.loads(pathlib.Path(os.environ["DATASET_DIR"], "data.json").read_text())
missing = sum(value is None for value in rows)
check = {"name": "nulls", "outcome": "Fail" if missing else "Pass", "message": f"{missing} of {len(rows)}"}
pathlib.Path("/dev/termination-log").write_text(json.dumps({"checks": [check], "profile": {"rows": len(rows)}}))
"""
READ = """
import json, os, pathlib
rows = json.loads(pathlib.Path(os.environ["DATASET_DIR"], "data.json").read_text())
inputs = json.loads(pathlib.Path(os.environ["INPUTS_FILE"]).read_text())
"""
READ_BY_ADDRESS = """
import json, os
from obstore.store import from_url
data = from_url(os.environ["DATASET_URI"], client_options={"allow_http": True})
rows = json.loads(bytes(data.get("data.json").bytes()))
inputs = json.loads(os.environ["INPUTS"])
"""
LEARN = """
import hashlib, os, pathlib
from obstore.store import from_url
content = json.dumps({"version": inputs["run"], "behaviour": {}, "mean": sum(rows) / len(rows)}).encode()
store = from_url(os.environ["OUTPUT_URI"], client_options={"allow_http": True})
store.put("model.json", content)
line = f"model.json\\0{len(content)}\\0{hashlib.sha256(content).hexdigest()}\\n"
digest = "sha256:" + hashlib.sha256(line.encode()).hexdigest()
pathlib.Path("/dev/termination-log").write_text(json.dumps({
    "artifact": {"uri": os.environ["OUTPUT_URI"], "digest": digest}, "parameters": inputs["parameters"],
}))
"""
WAIT_FOR_GO = """
import os, time
from obstore.store import from_url
store = from_url(os.environ["DATASET_URI"].rpartition("/")[0] + "/signals", client_options={"allow_http": True})
while True:
    try:
        store.head(os.environ["RUN_NAME"])
        break
    except FileNotFoundError:
        time.sleep(0.5)
"""
EVALUATE = """
import json, os, pathlib
rows = json.loads(pathlib.Path(os.environ["DATASET_DIR"], "data.json").read_text())
def score(directory):
    model = json.loads(pathlib.Path(directory, "model.json").read_text())
    return max(0, 1 - abs(model.get("mean", 0) - sum(rows) / len(rows)) / 10)
n = 1000 * len(rows)
right = round(n * score(os.environ["CANDIDATE_DIR"]))
figure = {"name": "accuracy", "candidate": right / n, "n": n}
if "SERVING_DIR" in os.environ:
    before = round(n * score(os.environ["SERVING_DIR"]))
    figure |= {"serving": before / n, "better": max(right - before, 0), "worse": max(before - right, 0)}
pathlib.Path("/dev/termination-log").write_text(json.dumps({"metrics": [figure]}))
"""


class Team:
    """A namespace whose Model follows, and whose policy trains on a list of numbers."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.data([1, 2, 3])
        model = space.model("v1")
        model["spec"]["version"] = {"follow": {}}
        space.apply(space.version("v1"), model)
        space.wait_ready("v1")
        space.asks("v1")
        self.policy()

    def data(self, rows: list[int | None]) -> None:
        self.space.upload("data/data.json", json.dumps(rows).encode())

    def go(self, run: str) -> None:
        """Let this run's WAIT_FOR_GO end."""
        self.space.upload(f"signals/{run}", b"")

    def work(self, script: str) -> Json:
        container = {
            "name": "work",
            "image": self.space.world.images["trainer"],
            "command": ["python3", "-c", script],
            "envFrom": [{"secretRef": {"name": SECRET}}],
        }
        return {"job": {"template": {"spec": {"containers": [container]}}, "backoffLimit": 0}}

    def policy(
        self,
        *,
        evaluate: str = EVALUATE,
        name: str = "digits",
        triggers: list[Json] | None = None,
        train: Json | None = None,
    ) -> None:
        secret = {"credentialsSecretRef": {"name": SECRET}}
        uri = f"s3://models/{self.space.name}"
        spec = {
            "modelRef": {"name": "digits"},
            "triggers": triggers or [{"name": "new-data", "data": {"uri": f"{uri}/data", "every": "1m", **secret}}],
            "guard": {"cooldown": "0s", "backoff": {"initial": "1h"}},
            "run": {
                "dataset": {"uri": f"{uri}/data", **secret},
                "parameters": {"C": "10"},
                "dataCheck": self.work(CHECK),
                "train": train or self.work(READ + LEARN),
                "evaluate": {**self.work(evaluate), "gates": [{"name": "accuracy", "min": "0.5", "minDelta": "-0.01"}]},
                "output": {"uri": f"{uri}/trained", "format": {"name": "v2-test"}, **secret},
            },
        }
        metadata = {"name": name, "namespace": self.space.name}
        self.space.apply({"apiVersion": API, "kind": "RetrainingPolicy", "metadata": metadata, "spec": spec})

    def ask(self, name: str) -> None:
        by = self.space.kubectl.run("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").strip()
        spec = {"policyRef": {"name": "digits"}, "manual": {"by": by, "reason": "to see what becomes of it"}}
        metadata = {"name": name, "namespace": self.space.name}
        self.space.apply({"apiVersion": API, "kind": "TrainingRun", "metadata": metadata, "spec": spec})

    def until(self, name: str | None, *states: str, timeout: float = 240) -> Json:
        """The run of this name, or the only one, once it is in one of these states."""

        def there() -> Json | None:
            found = [run for run in self.space.items(RUNS) if name in (None, run["metadata"]["name"])]
            return found[0] if found and found[0].get("status", {}).get("state") in states else None

        found: Json = eventually(there, f"the run {name or ''} is {' or '.join(states)}", timeout=timeout)
        return found

    def stage(self, run: str, name: str) -> Json:
        """What the status says of a stage of a run; empty before it has begun."""
        status = (self.space.get(RUNS, run) or {}).get("status", {})
        found: Json = next((stage for stage in status.get("stages", []) if stage["name"] == name), {})
        return found

    def serving(self) -> Any:
        model = self.space.get(MODELS, "digits") or {}
        return model.get("status", {}).get("serving", {}).get("version")

    def token(self, account: str, *verbs: str) -> str:
        """A token of a new ServiceAccount that has these verbs on the policy `alerted`."""
        rbac, name = "rbac.authorization.k8s.io", {"name": account, "namespace": self.space.name}
        rule = {"apiGroups": ["modelwright.dev"], "resources": ["retrainingpolicies"], "resourceNames": ["alerted"]}
        subject = {"kind": "ServiceAccount", **name}
        self.space.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": name},
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": name, "rules": [{**rule, "verbs": list(verbs)}]},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": name,
                "subjects": [subject],
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": account},
            },
        )
        return self.space.kubectl.run(
            "create", "token", account, "-n", self.space.name, "--audience", "modelwright.dev"
        ).strip()
