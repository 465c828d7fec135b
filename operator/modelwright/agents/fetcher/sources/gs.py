"""gs://: Google Cloud Storage."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from obstore.store import GCSStore

from modelwright.agents.fetcher.errors import FetchError, FetchReason
from modelwright.agents.fetcher.port import ArtifactSource, FetchContext
from modelwright.agents.fetcher.sources.objectstore import (
    NO_RETRIES,
    ObjectStoreSource,
    check_endpoint,
    client_options,
    open_anonymous,
)

if TYPE_CHECKING:
    from obstore.store import GCSConfig

_KEY_NAME = "GOOGLE_APPLICATION_CREDENTIALS_JSON"


def open_gcs(context: FetchContext) -> ArtifactSource:
    """Open the source with the given credentials: a JSON key or the identity of the pod."""
    credentials = context.credentials
    endpoint = check_endpoint("GOOGLE_ENDPOINT_URL", credentials.get("GOOGLE_ENDPOINT_URL"))
    config: GCSConfig = {"bucket": context.uri.authority}
    if endpoint:
        config["base_url"] = endpoint
    options = client_options(context, endpoint)

    def store(extra: GCSConfig) -> GCSStore:
        return GCSStore(config={**config, **extra}, client_options=options, retry_config=NO_RETRIES)

    if key := credentials.get(_KEY_NAME):
        explicit = _explicit_config(context, key)
        return ObjectStoreSource(
            context,
            endpoint,
            [lambda: store(explicit)],
            f"Google gave no token for the credentials in {_KEY_NAME}. Check the key.",
        )
    if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return ObjectStoreSource(
            context, endpoint, [lambda: store({})], "the pod's identity got no Google credentials."
        )
    cure = "Set credentialsSecretRef, or a serviceAccountName that is bound to a Google service account."
    return open_anonymous(context, endpoint, lambda: store({"skip_signature": True}), lambda: store({}), cure)


def _explicit_config(context: FetchContext, key: str) -> GCSConfig:
    """Build the configuration of given credentials.

    A service account's key is passed as text; other kinds (workload identity federation) only exist as files.
    """
    try:
        kind = json.loads(key).get("type", "")
    except (ValueError, AttributeError):
        raise FetchError(FetchReason.ACCESS_DENIED, f"The credentials' {_KEY_NAME} is not a JSON object.") from None
    if kind == "service_account":
        return {"service_account_key": key}
    path = context.credentials.mounted_path(_KEY_NAME)
    if path is None:
        raise FetchError(
            FetchReason.ACCESS_DENIED,
            f"Credentials of type {kind!a} in {_KEY_NAME} must come from the mounted Secret, not the environment.",
        )
    return {"application_credentials": str(path)}
