"""s3://: Amazon S3 and every store that speaks its protocol."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from obstore.store import S3Store

from modelwright.fetch.errors import FetchError, Reason
from modelwright.fetch.port import Context, Source
from modelwright.fetch.sources.objectstore import (
    NO_RETRIES,
    ObjectStoreSource,
    anonymous,
    check_endpoint,
    client_options,
)

if TYPE_CHECKING:
    from obstore.store import S3Config

# set by EKS for a ServiceAccount with a role, and by EKS Pod Identity
_POD_IDENTITY = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)


def open_source(context: Context) -> Source:
    credentials = context.credentials
    endpoint = check_endpoint("AWS_ENDPOINT_URL", credentials.get("AWS_ENDPOINT_URL"))
    config: S3Config = {
        "bucket": context.uri.authority,
        "region": credentials.get("AWS_REGION") or credentials.get("AWS_DEFAULT_REGION") or "us-east-1",
    }
    if endpoint:
        config["endpoint"] = endpoint
    options = client_options(context, endpoint)

    def store(extra: S3Config) -> S3Store:
        return S3Store(config={**config, **extra}, client_options=options, retry_config=NO_RETRIES)

    key, secret = credentials.get("AWS_ACCESS_KEY_ID"), credentials.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        raise FetchError(
            Reason.ACCESS_DENIED,
            "The credentials have only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; both are needed.",
        )
    if key:
        explicit: S3Config = {"access_key_id": key, "secret_access_key": secret}
        if token := credentials.get("AWS_SESSION_TOKEN"):
            explicit["session_token"] = token
        return ObjectStoreSource(context, endpoint, [lambda: store(explicit)])
    if any(os.environ.get(name) for name in _POD_IDENTITY):
        return ObjectStoreSource(
            context,
            endpoint,
            [lambda: store({})],
            "the pod's identity got no AWS credentials. Check the ServiceAccount's role.",
        )
    cure = "Set credentialsSecretRef or a serviceAccountName with a role."
    return anonymous(context, endpoint, lambda: store({"skip_signature": True}), lambda: store({}), cure)
