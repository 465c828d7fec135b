"""Renderers: from a Model, a version and a runtime to the manifests of its children. Pure."""
