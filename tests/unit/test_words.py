"""Plain names and words in the operator. `python scripts/words.py --limits` prints the limits, which only go down."""

from __future__ import annotations

import pytest

from scripts import words

LIMITS = {
    ".": 0.0,
    "agents": 0.2,
    "api": 0.0,
    "app": 0.0,
    "cli": 0.6,
    "core": 0.4,
    "engines": 0.0,
    "handlers": 0.0,
    "kube": 0.0,
    "measurement": 0.4,
    "net": 8.9,
    "obs": 1.9,
    "reconcile": 0.4,
    "render": 0.0,
    "sandbox": 0.0,
    "traffic": 0.0,
}
"""Private words per 1,000 lines, by package. Lower a limit when a package has fewer; never raise one."""


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return words.read_sources()


def test_no_package_exceeds_its_limit_of_private_words(sources: dict[str, str]) -> None:
    rates = words.words_per_package(sources)
    assert {name: rate for name, rate in rates.items() if rate > LIMITS.get(name, 0)} == {}


def test_every_limit_belongs_to_a_package(sources: dict[str, str]) -> None:
    assert set(LIMITS) <= set(words.words_per_package(sources))


def test_names_say_what_they_name(sources: dict[str, str]) -> None:
    table = words.build_table(sources)
    assert table.shared_classes == ()
    assert table.single_word <= 0.15
    assert table.shared_functions <= 0.03


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("told = _told(conditions)", 2),
        ("a bold toldish story", 0),
        ("LOOK_EVERY, next_look, looked_at, looked", 4),
        ("look at the log; a lookup", 0),
        ("Nobody and somebody, whoever or whatever", 4),
        ("from the begin of a rollout; they begin", 1),
        ("set by hand; what it comes to; on its way", 3),
        ("A Desk on the desktop", 1),
    ],
)
def test_private_words_are_counted_in_names_and_prose(text: str, count: int) -> None:
    assert words.count_words(text).total() == count


def test_the_table_measures_names_across_modules() -> None:
    table = words.build_table(
        {
            "a/one.py": 'class Row: ...\n\n\ndef read() -> None:\n    """Read."""\n',
            "b/one.py": "class Row: ...\n\n\ndef read() -> None: ...\n",
            "b/two.py": "def read() -> None: ...\n\n\ndef read_rows() -> None: ...\n",
        }
    )
    assert (table.files, table.classes, table.shared_classes) == (3, 1, ("Row",))
    assert (table.shared_modules, table.modules) == (2, 3)
    assert table.single_word == 0.75
    assert table.documented == 0.25
    assert table.shared_functions == 0.75


def test_the_command_prints_table_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert words.main([]) == 0
    assert "function names of a single word" in capsys.readouterr().out
    assert words.main(["--limits"]) == 0
    assert '    "core": ' in capsys.readouterr().out
