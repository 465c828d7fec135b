"""The process that reads tenants' languages: its bounds, whose turn it is, and what is kept."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from modelwright.sandbox import limits
from modelwright.sandbox.process import NoAnswer, Sandbox, SandboxBusy

FOR_EVER = {"pattern": "(a|aa)+!", "texts": ["a" * 60]}
MATCHES = {"pattern": "a+", "texts": ["aa", "ab"]}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    actual = Sandbox()
    yield actual
    actual._kill_process()


def test_an_endless_question_is_killed_and_not_repeated(sandbox: Sandbox) -> None:
    actual = sandbox.send_question("patterns", FOR_EVER)
    assert actual == NoAnswer("it took longer than 1 s of CPU time, and was ended")
    assert sandbox._process is None
    assert sandbox.send_question("patterns", FOR_EVER) == sandbox.get_cached("patterns", FOR_EVER) == actual
    assert sandbox._process is None, "it was not started for what is known"
    assert sandbox.send_question("patterns", MATCHES) == [True, False]


def test_a_question_that_was_ended_is_asked_again_later(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILED_QUESTION_SECONDS", 0.0)
    sandbox.send_question("patterns", FOR_EVER)
    assert sandbox.get_cached("patterns", FOR_EVER) is None


def test_an_answer_is_cached_on_request_within_the_size(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sandbox.send_question("patterns", MATCHES) == [True, False]
    assert sandbox.get_cached("patterns", MATCHES) is None
    sandbox.send_question("patterns", MATCHES, keep=True)
    sandbox.send_question("patterns", MATCHES, keep=True)
    assert sandbox.get_cached("patterns", MATCHES) == [True, False]
    monkeypatch.setattr(limits, "CACHE_BYTES", 2 * sandbox._cache_bytes)
    for text in "bcd":
        sandbox.send_question("patterns", {"pattern": text, "texts": ["aa", "ab"]}, keep=True)
    assert sandbox.get_cached("patterns", MATCHES) is None
    assert sandbox._cache_bytes <= limits.CACHE_BYTES


def test_memory_beyond_the_bound_ends_the_process_only(sandbox: Sandbox) -> None:
    actual = sandbox.send_question("patterns", {"pattern": "a", "texts": ["a" * (40 << 20)] * 2})
    assert isinstance(actual, NoAnswer)
    assert sandbox.send_question("patterns", MATCHES) == [True, False]


def test_only_what_is_asked_for_is_loaded() -> None:
    code = "import sys, modelwright.app.main; print(sorted({'promql_parser', 'cel_expr_python'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert ended.stdout == "[]\n", ended.stderr


async def test_a_namespace_with_many_questions_waits_behind_itself(sandbox: Sandbox, prompt_loop: None) -> None:
    order: list[str] = []
    go_on = threading.Event()

    def ask_question(name: str) -> None:
        go_on.wait(60)
        order.append(name)

    hostile = [asyncio.ensure_future(sandbox.run_in_turn("evil", ask_question, "evil")) for _ in range(5)]
    await asyncio.sleep(0)
    honest = asyncio.ensure_future(sandbox.run_in_turn("vision", ask_question, "vision"))
    await asyncio.sleep(0)
    with pytest.raises(SandboxBusy):
        await sandbox.run_if_free("evil", ask_question, "pass")
    go_on.set()
    await asyncio.gather(*hostile, honest)
    assert order.index("vision") <= 1
    assert order.count("evil") == 5
    await sandbox.run_if_free("evil", ask_question, "pass")
    assert order[-1] == "pass"
    assert not sandbox._namespace_locks
    assert not sandbox._waiting


async def test_a_turn_that_nobody_waits_for_any_more_is_given_on(sandbox: Sandbox) -> None:
    go_on = threading.Event()
    first = asyncio.ensure_future(sandbox.run_in_turn("evil", go_on.wait, 60))
    second: asyncio.Future[Any] = asyncio.ensure_future(sandbox.run_in_turn("evil", go_on.wait, 60))
    await asyncio.sleep(0)
    second.cancel()
    go_on.set()
    assert await first
    assert await sandbox.run_in_turn("evil", go_on.wait, 60)
    assert not sandbox._namespace_locks


async def test_a_namespace_beyond_the_limits_comes_last() -> None:
    """With a second of CPU for each, thirty hostile namespaces with ever new questions held an honest one for 30 s."""
    sandbox, questions, go_on = Sandbox(), [], threading.Event()

    def ask_question(who: str, *, breaks: bool = False) -> None:
        go_on.wait(60)
        questions.append(who)
        if breaks:
            sandbox._fail_question(f"{who} {len(questions)}".encode(), "it took longer")

    evil = [f"evil-{number}" for number in range(30)]
    go_on.set()
    for who in evil:
        await sandbox.run_in_turn(who, ask_question, who, breaks=True)
    questions.clear()
    go_on.clear()
    hostile = [asyncio.ensure_future(sandbox.run_in_turn(who, ask_question, who, breaks=True)) for who in evil]
    await asyncio.sleep(0)
    honest = [asyncio.ensure_future(sandbox.run_in_turn(who, ask_question, who)) for who in ("vision", "speech")]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*honest, *hostile)
    assert questions[:3] == ["evil-0", "vision", "speech"]
    assert sorted(questions[3:]) == sorted(evil[1:]), "they come too"


async def test_who_gives_up_waiting_holds_nobody_up() -> None:
    sandbox, go_on = Sandbox(), threading.Event()
    first = asyncio.ensure_future(sandbox.run_in_turn("a", go_on.wait, 60))
    await asyncio.sleep(0)
    second, third = (asyncio.ensure_future(sandbox.run_in_turn(who, go_on.wait, 60)) for who in "bc")
    await asyncio.sleep(0)
    second.cancel()
    go_on.set()
    assert await first
    assert await asyncio.wait_for(third, 60)
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await asyncio.wait_for(sandbox.run_in_turn("d", go_on.wait, 60), 60)
