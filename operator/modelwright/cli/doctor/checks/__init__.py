"""The checks of `doctor` by subject. Importing a module registers its checks."""

from modelwright.cli.doctor.checks import (
    gateways,
    install,
    metric_sources,
    pod_starts,
    referenced_objects,
    runtime_formats,
    states,
    user_roles,
)

SECTIONS = (install, user_roles, gateways, metric_sources, referenced_objects, runtime_formats, pod_starts, states)
"""In printing order: causes before their consequences."""
