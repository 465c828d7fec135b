"""The checks of `doctor`, by what they are about. Importing a module registers its checks."""

from modelwright.cli.doctor.checks import (
    credentials,
    gateways,
    install,
    measuring,
    pods,
    rights,
    runtimes,
    states,
)

SECTIONS = (install, rights, gateways, measuring, credentials, runtimes, pods, states)
"""In the order in which they are printed: causes before what follows from them."""
