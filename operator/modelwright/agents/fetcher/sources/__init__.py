"""One module per kind of store, and the table of the schemes that each serves."""

from __future__ import annotations

from importlib import import_module

from modelwright.agents.fetcher.port import ArtifactSource, FetchContext

# modules are imported on demand: a pod that reads from S3 should not wait for the Hub's library to load
SOURCES = {
    "s3": ("s3", "open_s3"),
    "gs": ("gs", "open_gcs"),
    "az": ("az", "open_azure"),
    "http": ("http", "HttpSource"),
    "https": ("http", "HttpSource"),
    "hf": ("hf", "HubSource"),
    "oci": ("oci", "RegistrySource"),
    "pvc": ("pvc", "ClaimSource"),
}
"""By scheme: the module, and its function or class that makes a source of a FetchContext."""


def open_source(context: FetchContext) -> ArtifactSource:
    """Open the source for the context's uri. Raises FetchError if its configuration is invalid."""
    module, factory = SOURCES[context.uri.scheme]
    source: ArtifactSource = getattr(import_module(f"{__name__}.{module}"), factory)(context)
    return source
