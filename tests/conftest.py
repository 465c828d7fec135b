"""Options of the whole test suite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.lib.loops import none_holds_the_loop

# A busy host must not make a property fail.
settings.register_profile("modelwright", deadline=None)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("EXAMPLES", "5000")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("modelwright")


TESTS = Path(__file__).parent
# Files that take longest: processes share the tests by files, and a long one that is last would run alone.
LONGEST = (
    "controlplane/test_serving.py",
    "controlplane/test_faults.py",
    "controlplane/test_crash_matrix.py",
    "controlplane/test_approval_story.py",
    "property/test_rollouts.py",
    "packaging/test_sbom.py",
    "unit/test_digits_example.py",
    "property/test_retraining.py",
    "property/test_reconcile.py",
    "unit/api/test_crd.py",
    "unit/test_suite.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from what is rendered now")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """One seed repeats all that is drawn: Hypothesis takes the one that samples of stories are drawn by."""
    seed = os.environ.get("MODELWRIGHT_SEED")
    if seed and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = seed


@pytest.fixture
def prompt_loop() -> Iterator[None]:
    """Fails the test when one callback takes more than 100 ms of CPU time of the event loop's thread."""
    with none_holds_the_loop():
        yield
