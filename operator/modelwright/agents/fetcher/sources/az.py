"""az://: Azure Blob Storage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from obstore.store import AzureStore

from modelwright.agents.fetcher.port import ArtifactSource, FetchContext
from modelwright.agents.fetcher.sources.objectstore import (
    NO_RETRIES,
    ObjectStoreSource,
    check_endpoint,
    client_options,
    open_anonymous,
)

if TYPE_CHECKING:
    from obstore.store import AzureConfig

_CREDENTIALS_HINT = "Set credentialsSecretRef, or a serviceAccountName with workload identity."


def open_azure(context: FetchContext) -> ArtifactSource:
    """Open the source with the given credentials: account key, SAS token, service principal or workload identity."""
    credentials = context.credentials
    endpoint = check_endpoint("AZURE_ENDPOINT_URL", credentials.get("AZURE_ENDPOINT_URL"))
    config: AzureConfig = {"account_name": context.uri.authority, "container_name": context.uri.container}
    if endpoint:
        config["endpoint"] = endpoint
    options = client_options(context, endpoint)

    def store(extra: AzureConfig) -> AzureStore:
        return AzureStore(config={**config, **extra}, client_options=options, retry_config=NO_RETRIES)

    if key := credentials.get("AZURE_STORAGE_ACCOUNT_KEY"):
        return ObjectStoreSource(context, endpoint, [lambda: store({"account_key": key})])
    if token := credentials.get("AZURE_STORAGE_SAS_TOKEN"):
        return ObjectStoreSource(context, endpoint, [lambda: store({"sas_key": token.removeprefix("?")})])
    client, secret, tenant = (credentials.get(f"AZURE_{name}") for name in ("CLIENT_ID", "CLIENT_SECRET", "TENANT_ID"))
    if client and secret and tenant:
        principal: AzureConfig = {"client_id": client, "client_secret": secret, "tenant_id": tenant}
        return ObjectStoreSource(
            context, endpoint, [lambda: store(principal)], "Azure gave no token for AZURE_CLIENT_ID. Check its secret."
        )
    if os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return ObjectStoreSource(
            context,
            endpoint,
            [lambda: store({})],
            "the pod's identity got no Azure token. Check the ServiceAccount's annotations.",
        )
    return open_anonymous(
        context, endpoint, lambda: store({"skip_signature": True}), lambda: store({}), _CREDENTIALS_HINT
    )
