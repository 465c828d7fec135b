"""Leader election: never two leaders, for any behaviour of clocks, network and the other candidate."""

import asyncio
import contextlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.api.names import LABEL_SHARD
from modelwright.kube import api_errors, kinds
from modelwright.kube.lease import ANNOTATION_FOLLOWED, LeaderElector, LeaseConfig, LeaseLost
from modelwright.obs.clock import FakeClock
from tests.unit.kube.fakes import FakeClient, transient


class Candidate:
    """One process: its elector, the tasks it runs, and how it ended."""

    def __init__(self, name: str, client: Any, clock: FakeClock, pod_uid: str) -> None:
        self.lost: list[str] = []
        self.elector = LeaderElector(
            client,
            LeaseConfig("ns", "lease", name, address=f"{name}:8080", pod_uid=pod_uid),
            on_lost=self.lost.append,
            clock=clock,
            rng=random.Random(1),
        )
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self.tasks.append(asyncio.create_task(self._run()))

    async def _run(self) -> None:
        await self.elector.acquire()
        await self.elector.renew()

    def kill(self) -> None:
        for task in self.tasks:
            task.cancel()


class LeaseHarness:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.client = FakeClient()
        self.candidates: list[Candidate] = []

    def candidate(self, name: str, client: Any = None, pod_uid: str = "") -> Candidate:
        self.candidates.append(Candidate(name, client or self.client, self.clock, pod_uid))
        self.candidates[-1].start()
        return self.candidates[-1]

    async def pass_time(self, seconds: float, step: float = 0.25) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            for _ in range(8):
                await asyncio.sleep(0)
            assert sum(c.elector.is_leading for c in self.candidates) <= 1, "two leaders at once"

    @property
    def lease(self) -> dict[str, Any]:
        return self.client.objects[kinds.LEASE, "ns", "lease"]["spec"]

    async def close(self) -> None:
        for candidate in self.candidates:
            candidate.kill()
            for task in candidate.tasks:
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task


@pytest.fixture
async def harness():
    harness = LeaseHarness()
    yield harness
    await harness.close()


async def test_the_first_candidate_leads_at_once_and_renews(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(0.25)
    assert a.elector.is_leading
    assert harness.lease["holderIdentity"] == a.elector.identity
    assert harness.lease["leaseDurationSeconds"] == 15
    first = harness.lease["renewTime"]
    await harness.pass_time(60)
    assert a.elector.is_leading
    assert harness.lease["renewTime"] > first
    assert harness.lease["leaseTransitions"] == 0
    assert a.lost == []


async def test_a_second_candidate_waits_while_the_first_renews(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(1)
    b = harness.candidate("b")
    await harness.pass_time(120)
    assert a.elector.is_leading
    assert not b.elector.is_leading


async def test_two_that_start_together_agree_on_one(harness: LeaseHarness) -> None:
    harness.candidate("a")
    harness.candidate("b")
    await harness.pass_time(60)
    assert sum(c.elector.is_leading for c in harness.candidates) == 1


async def test_a_killed_leader_is_replaced_when_its_lease_expires(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(1)
    b = harness.candidate("b")
    await harness.pass_time(10)
    a.kill()
    harness.candidates.remove(a)
    await harness.pass_time(12)
    assert not b.elector.is_leading
    await harness.pass_time(8)
    assert b.elector.is_leading
    assert harness.lease["leaseTransitions"] == 1


async def test_the_next_container_of_its_pod_replaces_a_leader_at_once(harness: LeaseHarness) -> None:
    a = harness.candidate("a", pod_uid="uid-a")
    await harness.pass_time(1)
    b = harness.candidate("b", pod_uid="uid-b")
    await harness.pass_time(5)
    a.kill()
    harness.candidates.remove(a)
    again = harness.candidate("a", pod_uid="uid-a")
    await harness.pass_time(0.5)
    assert again.elector.is_leading
    assert not b.elector.is_leading
    assert harness.lease["leaseTransitions"] == 1


async def test_pods_that_do_not_know_their_uid_are_not_taken_for_one(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(1)
    a.kill()
    harness.candidates.remove(a)
    again = harness.candidate("a")
    await harness.pass_time(10)
    assert not again.elector.is_leading


async def test_a_lease_given_back_is_taken_at_once(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(1)
    b = harness.candidate("b")
    await harness.pass_time(5)
    a.kill()
    await asyncio.sleep(0)
    await a.elector.release()
    assert not a.elector.is_leading
    assert harness.lease["holderIdentity"] == ""
    await harness.pass_time(3)
    assert b.elector.is_leading
    assert a.lost == []


async def test_a_leader_that_cannot_renew_ends_before_another_starts(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(1)
    b = harness.candidate("b")
    await harness.pass_time(5)
    harness.client.failing["replace"] = [transient() for _ in range(8)]
    await harness.pass_time(10.5)
    assert a.lost == ["the Lease could not be renewed for 10 s"]
    assert not a.elector.is_leading
    assert not b.elector.is_leading
    harness.client.failing.clear()
    await harness.pass_time(10)
    assert b.elector.is_leading


async def test_a_renewal_that_hangs_ends_the_leader_as_well(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(5)
    harness.client.hanging.add("replace")
    await harness.pass_time(12.5)
    assert len(a.lost) == 1


async def test_a_short_outage_is_survived(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(5)
    harness.client.failing["replace"] = [transient(), transient(), None]
    await harness.pass_time(30)
    assert a.elector.is_leading
    assert a.lost == []


async def test_a_renewal_whose_answer_was_lost_is_recognised(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(3)
    # Written, but the answer did not come: the version moved on without us knowing.
    harness.client.save(dict(harness.client.objects[kinds.LEASE, "ns", "lease"]))
    await harness.pass_time(30)
    assert a.elector.is_leading
    assert a.lost == []


async def test_taking_the_lease_with_a_lost_answer_is_recognised(harness: LeaseHarness) -> None:
    class LosesFirstAnswer(FakeClient):
        lose = True

        async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
            answer = await super().create(obj)
            if self.lose:
                self.lose = False
                raise transient()
            return answer

    client = LosesFirstAnswer()
    a = harness.candidate("a", client)
    await harness.pass_time(5)
    assert a.elector.is_leading


async def test_a_leader_whose_lease_was_taken_ends(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(3)
    stolen = dict(harness.client.objects[kinds.LEASE, "ns", "lease"])
    stolen["spec"] = {**stolen["spec"], "holderIdentity": "another-process"}
    harness.client.save(stolen)
    await harness.pass_time(3)
    assert a.lost == ["another process has taken the Lease"]


async def test_a_leader_whose_lease_was_deleted_ends(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(3)
    harness.client.objects.clear()
    await harness.pass_time(3)
    assert a.lost == ["the Lease has been deleted"]


async def test_the_wall_clock_does_not_matter(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(1)
    b = harness.candidate("b")
    for jump in (86400, -3 * 86400, 10**7):
        harness.clock.jump_wall_clock(jump)
        await harness.pass_time(20)
        assert a.elector.is_leading
        assert not b.elector.is_leading
    a.kill()
    harness.clock.jump_wall_clock(-(10**7))
    harness.candidates.remove(a)
    await harness.pass_time(20)
    assert b.elector.is_leading


async def test_the_guard_lets_a_leader_write_and_nobody_else(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    with pytest.raises(LeaseLost):
        a.elector.check_may_write()
    assert a.lost == []
    await harness.pass_time(1)
    a.elector.check_may_write()


async def test_a_process_that_slept_through_its_lease_may_not_write(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(1)
    # Time passes without the event loop turning: a stopped process, or one long computation.
    harness.clock._monotonic += 11
    with pytest.raises(LeaseLost):
        a.elector.check_may_write()
    assert len(a.lost) == 1
    with pytest.raises(LeaseLost):
        a.elector.check_may_write()
    assert len(a.lost) == 1


async def test_giving_back_after_a_renewal_that_was_cut_off(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(3)
    a.kill()
    harness.client.save(dict(harness.client.objects[kinds.LEASE, "ns", "lease"]))
    await a.elector.release()
    assert harness.lease["holderIdentity"] == ""


async def test_releasing_the_lease_of_another_holder_changes_nothing(harness: LeaseHarness) -> None:
    a = harness.candidate("a")
    await harness.pass_time(3)
    a.kill()
    stolen = dict(harness.client.objects[kinds.LEASE, "ns", "lease"])
    stolen["spec"] = {**stolen["spec"], "holderIdentity": "another-process"}
    harness.client.save(stolen)
    await a.elector.release()
    assert harness.lease["holderIdentity"] == "another-process"


async def test_no_access_is_told_and_tried_again(harness: LeaseHarness, caplog: pytest.LogCaptureFixture) -> None:
    harness.client.failing["get"] = [api_errors.Denied(403, "Forbidden", "leases may not be read")] * 3
    a = harness.candidate("a")
    await harness.pass_time(12)
    assert "leases may not be read" in caplog.text or any("leases may" in str(vars(r)) for r in caplog.records)
    assert a.elector.is_leading


@pytest.mark.parametrize("times", [(10, 10, 2), (15, 10, 10), (15, 16, 2)])
def test_times_that_do_not_fit_are_refused(times: tuple[float, float, float]) -> None:
    lease, renew, retry = times
    with pytest.raises(ValueError, match="must hold"):
        LeaseConfig("ns", "lease", "a", lease_seconds=lease, renew_seconds=renew, retry_seconds=retry)


FAULTS = st.lists(
    st.tuples(st.sampled_from(["fail-a", "fail-b", "fail-both", "jump", "kill-a", "fine"]), st.integers(1, 25)),
    max_size=8,
)


@given(FAULTS)
@settings(max_examples=60, deadline=None)
def test_never_two_leaders_and_always_one_again_whatever_fails(faults: list[tuple[str, int]]) -> None:
    class Cut:
        """A client whose network can be cut."""

        def __init__(self, client: FakeClient) -> None:
            self.client = client
            self.cut = False

        def __getattr__(self, verb: str) -> Any:
            async def call(*args: Any) -> Any:
                if self.cut:
                    raise transient()
                answer = await getattr(self.client, verb)(*args)
                if self.cut:
                    raise transient()
                return answer

            return call

    async def story() -> None:
        harness = LeaseHarness()
        cuts = {name: Cut(harness.client) for name in "ab"}
        current = {name: harness.candidate(name, cuts[name]) for name in "ab"}
        for fault, seconds in faults:
            cuts["a"].cut = fault in ("fail-a", "fail-both")
            cuts["b"].cut = fault in ("fail-b", "fail-both")
            if fault == "jump":
                harness.clock.jump_wall_clock(10_000)
            if fault == "kill-a":
                current["a"].kill()
                harness.candidates.remove(current["a"])
                current["a"] = harness.candidate("a", cuts["a"])
            await harness.pass_time(seconds)
            for name, candidate in list(current.items()):
                if candidate.lost:
                    # The process has ended, as it must; its pod restarts.
                    candidate.kill()
                    harness.candidates.remove(candidate)
                    current[name] = harness.candidate(name, cuts[name])
        for cut in cuts.values():
            cut.cut = False
        await harness.pass_time(40)
        alive = [c for c in current.values() if not c.lost]
        assert sum(c.elector.is_leading for c in alive) == 1 or len(alive) < 2
        await harness.close()

    asyncio.run(story())


async def test_a_standby_knows_the_leaders_address_until_it_leads(harness: LeaseHarness) -> None:
    first = harness.candidate("a")
    await harness.pass_time(1)
    second = harness.candidate("b")
    await harness.pass_time(3)
    assert second.elector.leader_address == "a:8080"
    assert first.elector.leader_address is None
    first.kill()
    await harness.pass_time(20)
    assert second.elector.is_leading
    assert second.elector.leader_address is None
    await second.elector.release()
    assert not harness.client.objects[kinds.LEASE, "ns", "lease"]["metadata"].get("annotations")


async def test_a_shards_lease_has_its_label_and_the_followed_version() -> None:
    clock, client = FakeClock(), FakeClient()
    elector = LeaderElector(client, LeaseConfig("ns", "lease", "one", shard="red"), on_lost=pytest.fail, clock=clock)
    await elector.acquire()
    metadata = client.objects[kinds.LEASE, "ns", "lease"]["metadata"]
    assert metadata["labels"] == {LABEL_SHARD: "red"}
    assert ANNOTATION_FOLLOWED not in metadata.get("annotations", {})
    elector.followed_version = lambda: 42
    await elector._try_renew()
    assert client.objects[kinds.LEASE, "ns", "lease"]["metadata"]["annotations"] == {ANNOTATION_FOLLOWED: "42"}
    await elector.release()
    metadata = client.objects[kinds.LEASE, "ns", "lease"]["metadata"]
    assert metadata["labels"] == {LABEL_SHARD: "red"}
    assert ANNOTATION_FOLLOWED not in metadata.get("annotations", {})
