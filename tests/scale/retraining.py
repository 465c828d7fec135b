"""Many RetrainingPolicies that stand idle: what they write, and how their queries are spread."""

import asyncio
import contextlib
import os
from collections import Counter
from pathlib import Path

from devcluster import ControlPlane
from modelwright.api.names import API_VERSION
from modelwright.kube import kinds
from modelwright.kube.client import KubeClient, load_configuration
from tests.lib.api import Api, install, install_policies
from tests.scale.audit import AuditLog
from tests.scale.figures import Figures
from tests.scale.objects import DIGEST, NAMESPACE, Object, model, runtime, version
from tests.scale.operator_process import ROOT, OperatorProcess
from tests.scale.waiting import all_serve, put_all, quiet
from tests.servers.prometheus_fake import FakePrometheus

INTERVAL = 60
BOUNDS = {
    1000: {
        "idle RetrainingPolicies: writes": 0.0,
        "idle RetrainingPolicies: queries a policy in its interval": 1.0,
        "idle RetrainingPolicies: most queries in a second, of an even spread": 3.0,
        "RetrainingPolicies: memory MiB": 200.0,
    },
}
"""What issue 5 and design.md ask for; evenly spread, there would be policies / interval queries in each second."""


def policy(number: int) -> Object:
    """A policy that asks a query each minute, and has a schedule that is far away."""
    query = {"query": f'score{{namespace="{NAMESPACE}",version="m-v1"}}', "above": "1", "interval": f"{INTERVAL}s"}
    return {
        "apiVersion": API_VERSION,
        "kind": "RetrainingPolicy",
        "metadata": {"name": f"p{number:05d}", "namespace": NAMESPACE},
        "spec": {
            "modelRef": {"name": "m"},
            "triggers": [
                {"name": "drift", "prometheus": query},
                {"name": "yearly", "schedule": {"cron": "0 0 1 1 *", "timeZone": "Europe/Berlin"}},
            ],
            "run": {
                "dataset": {"uri": "s3://data/m", "digest": DIGEST},
                "train": {"job": {"template": {"spec": {"containers": [{"name": "t", "image": "example.com/t:1"}]}}}},
                "output": {"uri": "s3://models/m", "format": {"name": "scale"}},
            },
        },
    }


async def measure(count: int, idle: float, folder: Path) -> Figures:
    """All figures for `count` policies that stand idle for `idle` seconds."""
    figures = Figures(count)
    async with contextlib.AsyncExitStack() as stack:
        plane = stack.enter_context(ControlPlane(kwok_nodes=3, audit=True))
        os.environ["KUBECONFIG"] = str(plane.kubeconfig)
        client = KubeClient(await load_configuration(), qps=2000, burst=4000, user_agent="scale-harness")
        stack.push_async_callback(client.close)
        api = await stack.enter_async_context(Api(plane.kubeconfig, agent="scale-harness"))
        metrics = await stack.enter_async_context(FakePrometheus())
        metrics.scores[NAMESPACE, "m-v1"] = [0.5]
        await install(api, ROOT / "crds")
        await install_policies(api, ROOT / "manifests/policies")
        await put_all(client, [runtime(), version("m", 1), model("m", 1)])
        audit = AuditLog(plane.audit_log)
        operator = OperatorProcess(
            plane.kubeconfig,
            folder / f"operator-retraining-{count}.log",
            qps=1000,
            burst=2000,
            connections_file=metrics.connections(folder),
        )
        stack.enter_context(operator)
        await asyncio.to_thread(operator.wait_ready)
        await all_serve(client, 1, 1, patience=120, check=operator.check)
        await put_all(client, [policy(number) for number in range(count)])
        counts = await quiet(audit)
        figures.values["RetrainingPolicies: writes to create one"] = counts.total_writes / count
        # Every one has begun to look.
        await asyncio.sleep(INTERVAL)
        audit.take()
        metrics.asked.clear()
        cpu = operator.cpu_seconds()
        await asyncio.sleep(idle)
        counts, asked = audit.take(), list(metrics.asked)
        figures.values["idle RetrainingPolicies: writes"] = counts.total_writes + counts.events
        figures.values["idle RetrainingPolicies: queries a policy in its interval"] = (
            len(asked) / count / (idle / INTERVAL)
        )
        most = max(Counter(int(at) for at in asked).values(), default=0)
        figures.values["idle RetrainingPolicies: most queries in a second, of an even spread"] = most / (
            count / INTERVAL
        )
        figures.values["idle RetrainingPolicies: CPU % of a core"] = 100 * (operator.cpu_seconds() - cpu) / idle
        figures.values["RetrainingPolicies: memory MiB"] = operator.resident_mib()
        if await client.list(kinds.TRAINING_RUN, NAMESPACE):
            raise RuntimeError("a run began, and nothing has asked for one")
    return figures
