"""`python -m tests.scale.spike`: the bare operator, with KUBECONFIG, and /readyz at MODELWRIGHT_HTTP_PORT."""

import asyncio
import os

import kopf
from kubernetes.aio import client, config

from tests.scale.spike.handlers import AGENT, Handlers


async def run() -> None:
    """Watch and serve until SIGTERM."""
    configuration = client.Configuration()
    await config.load_kube_config(client_configuration=configuration)
    # As in Modelwright's client: looking at the environment for each request would nearly double its cost.
    configuration.client_session_kwargs = {"trust_env": False}
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    async with client.ApiClient(configuration) as api:
        api.user_agent = AGENT
        registry = kopf.OperatorRegistry()
        Handlers(api).register(registry)
        port = os.environ["MODELWRIGHT_HTTP_PORT"]
        await kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            clusterwide=True,
            liveness_endpoint=f"http://127.0.0.1:{port}/readyz",
        )


if __name__ == "__main__":
    kopf.configure(quiet=True)
    asyncio.run(run())
