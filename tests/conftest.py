"""Options of the whole test suite."""

import pytest
from hypothesis import settings

# A busy host must not make a property fail.
settings.register_profile("modelwright", deadline=None)
settings.load_profile("modelwright")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from what is rendered now")
