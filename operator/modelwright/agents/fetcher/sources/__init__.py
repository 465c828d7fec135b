"""One module per kind of store, and the table that says which scheme is served by which."""

from __future__ import annotations

from importlib import import_module

from modelwright.agents.fetcher.port import ArtifactSource, FetchContext

# modules are imported when needed: a pod that reads from S3 should not wait for the Hub's library to load
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
    """The source for the context's uri. FetchError when its configuration is unusable."""
    module = import_module(f"{__name__}.{SOURCE_MODULES[context.uri.scheme]}")
    source: ArtifactSource = module.open_source(context)
    return source
