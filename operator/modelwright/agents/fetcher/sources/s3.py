"""s3://: Amazon S3 and every store with its protocol."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.store import S3Store

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
    from obstore.store import S3Config

_HOST_STYLE = "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"
_BUCKET_LABELS = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")

# set by EKS for a ServiceAccount with a role, and by EKS Pod Identity
_POD_IDENTITY_VARIABLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)


def add_bucket_to_host(endpoint: str, bucket: str) -> str:
    """Return the endpoint with the bucket before its host, unless it is already there. Raises FetchError(InvalidURI) if
    the two form no host name. Pure."""
    split = urlsplit(endpoint)
    host = split.hostname or ""
    if host.startswith(f"{bucket}."):
        return endpoint
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if _BUCKET_LABELS.fullmatch(bucket) and ".." not in bucket:
            return f"{split.scheme}://{bucket}.{split.netloc}{split.path}"
        why = f"the bucket {bucket[:120]!a} can't be a part of a host name"
    else:
        why = "AWS_ENDPOINT_URL has an address in place of a host name"
    raise FetchError(FetchReason.INVALID_URI, f"{_HOST_STYLE} puts the bucket in front of the store's host, and {why}.")


def open_s3(context: FetchContext) -> ArtifactSource:
    """Open the source with the given credentials: an access key or the identity of the pod."""
    credentials = context.credentials
    endpoint = check_endpoint("AWS_ENDPOINT_URL", credentials.get("AWS_ENDPOINT_URL"))
    config: S3Config = {
        "bucket": context.uri.authority,
        "region": credentials.get("AWS_REGION") or credentials.get("AWS_DEFAULT_REGION") or "us-east-1",
    }
    if credentials.is_enabled(_HOST_STYLE):
        config["virtual_hosted_style_request"] = True
        endpoint = add_bucket_to_host(endpoint, context.uri.authority) if endpoint else ""
    if endpoint:
        config["endpoint"] = endpoint
    options = client_options(context, endpoint)

    def store(extra: S3Config) -> S3Store:
        return S3Store(config={**config, **extra}, client_options=options, retry_config=NO_RETRIES)

    key, secret = credentials.get("AWS_ACCESS_KEY_ID"), credentials.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        raise FetchError(
            FetchReason.ACCESS_DENIED,
            "The credentials have only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; both are needed.",
        )
    if key:
        explicit: S3Config = {"access_key_id": key, "secret_access_key": secret}
        if token := credentials.get("AWS_SESSION_TOKEN"):
            explicit["session_token"] = token
        return ObjectStoreSource(context, endpoint, [lambda: store(explicit)])
    if any(os.environ.get(name) for name in _POD_IDENTITY_VARIABLES):
        return ObjectStoreSource(
            context,
            endpoint,
            [lambda: store({})],
            "the pod's identity got no AWS credentials. Check the ServiceAccount's role.",
        )
    cure = "Set credentialsSecretRef or a serviceAccountName with a role."
    return open_anonymous(context, endpoint, lambda: store({"skip_signature": True}), lambda: store({}), cure)
