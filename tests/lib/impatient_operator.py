"""The operator with its own time limits shortened, so that what answers to nothing costs seconds and not minutes:
`python -m tests.lib.impatient_operator`. Nothing else differs from `python -m modelwright run`."""

import sys

import kopf

from modelwright.app.main import main
from modelwright.handlers import kopf_watch
from modelwright.kube.client import KubeClient

REQUEST_SECONDS = 3.0
INACTIVITY_SECONDS = 8.0


def install() -> None:
    """Shorten them in this process."""
    defaults = KubeClient.__init__.__kwdefaults__
    assert defaults is not None
    defaults["request_seconds"] = REQUEST_SECONDS
    settings = kopf_watch.build_settings

    def impatient() -> kopf.OperatorSettings:
        found = settings()
        found.watching.inactivity_timeout = INACTIVITY_SECONDS
        found.networking.request_timeout = REQUEST_SECONDS
        return found

    kopf_watch.build_settings = impatient


if __name__ == "__main__":
    install()
    sys.exit(main())
