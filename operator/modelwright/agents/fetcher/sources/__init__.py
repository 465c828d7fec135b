"""One module per kind of store, and the table of the schemes that each serves."""

from __future__ import annotations

from importlib import import_module

from modelwright.agents.fetcher.port import ArtifactSource, FetchContext

# modules are imported on demand: a pod that reads from S3 should not wait for the Hub's library to load
SOURCE_MODULES = {
    "s3": "s3",
    "gs": "gs",
    "az": "az",
    "http": "http",
    "https": "http",
    "hf": "hf",
    "oci": "oci",
    "pvc": "pvc",
}


def open_source(context: FetchContext) -> ArtifactSource:
    """Open the source for the context's uri. Raises FetchError if its configuration is invalid."""
    module = import_module(f"{__name__}.{SOURCE_MODULES[context.uri.scheme]}")
    source: ArtifactSource = module.open_source(context)
    return source
