"""Checks of what was measured: numbers that say nothing are no evidence, whatever they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from modelwright.api.reasons import Reason
from modelwright.core.analysis import counters
from modelwright.core.analysis.evidence import RequestShares, Series
from modelwright.core.analysis.scraped_counters import CounterGrowth, block_ends
from modelwright.measurement import queries
from modelwright.measurement.prometheus import PrometheusClient
from modelwright.measurement.queries import LabelMatcher
from modelwright.sandbox.process import SANDBOX, NoAnswer

_GRPC_NAMES = (
    "OK Canceled Unknown InvalidArgument DeadlineExceeded NotFound AlreadyExists PermissionDenied ResourceExhausted "
    "FailedPrecondition Aborted OutOfRange Unimplemented Internal Unavailable DataLoss Unauthenticated"
)
LABEL_VOCABULARIES = (
    ("status of HTTP", frozenset(["0", *map(str, range(100, 600))])),
    ("class of HTTP's statuses", frozenset(f"{digit}xx" for digit in range(1, 6))),
    ("class of HTTP's statuses", frozenset(f"{digit}XX" for digit in range(1, 6))),
    ("status of gRPC", frozenset(map(str, range(17)))),
    ("status of gRPC", frozenset(_GRPC_NAMES.split())),
    ("status of gRPC", frozenset(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", _GRPC_NAMES).upper().split())),
)
"""Values that a label can have when those it has are among them: (what each is, all values)."""


SeriesPair = Sequence[tuple[Series, ...]]
"""Of one revision: what the bad requests' series counted, and those of all requests."""


class NoEvidence(Exception):
    """There are numbers, and they say nothing; `reason` is the verdict's. Never leaves this package."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def require_single_scrape(found: CounterGrowth) -> tuple[tuple[Series, ...], ...]:
    """What was counted for each selector. Raises NoEvidence when a target that is scraped twice can't be counted."""
    if found.doubled:
        message = f"{found.doubled}: let one job of one Prometheus scrape it, or name that job in the selector"
        raise NoEvidence(Reason.TARGET_SCRAPED_TWICE, message)
    return found.groups


def compute_shares(pairs: Sequence[SeriesPair], start: float, end: float) -> RequestShares:
    """The shares of bad requests of the candidate and, when there is a second pair, of the serving revision; then by
    blocks too. Raises NoEvidence."""
    try:
        arms = [counters.count_arm(bad, total, start, end) for bad, total in pairs]
    except counters.MoreBadThanTotal as error:
        message = f"{error}: the selector of all requests must match the bad ones too"
        raise NoEvidence(Reason.MORE_BAD_THAN_ALL, message) from None
    if len(arms) == 1:
        return RequestShares(arms[0], None)
    ends = tuple(block_ends(start, end))
    one, zero = (counters.count_arm_blocks(bad, total, start, ends) for bad, total in pairs)
    return RequestShares(arms[0], arms[1], blocks=(one, zero))


async def explain_missing_data(server: PrometheusClient, query: str, at: float, who: str) -> str:
    """Why a number of `query` at `at` (unix seconds) is no measurement: it would be the same without any data, and
    there is none. Empty when it is one. `who`: namespace whose query it is. Raises Fault."""
    found = await queries.try_parse_query(query, "prometheus.query", who)
    if found is None or not found.always_gives_number:
        return ""
    if not found.presence_query:
        return "the query reads no series, so its number measures nothing"
    number, _ = await server.query_number(found.presence_query, at)
    return "" if number is not None else "the query gives a number without any data, and none of its series is there"


@dataclass(slots=True)
class SelectorChecks:
    """Whether selectors of bad requests that found nothing can find anything: no bad requests, or a selector misspelt.

    `_existing`: those of which some series are known, with the connection.
    """

    _known_selectors: set[tuple[str, str]] = field(default_factory=set)

    async def check_bad_selector(
        self, server: PrometheusClient, pair: Sequence[str], found: Sequence[SeriesPair], what: str, at: float, who: str
    ) -> None:
        """Raise NoEvidence when the first selector of `pair` (bad, all) found nothing, and can't.

        `found`: what the two found for each revision. `what`: the place of the first, for people; `who`: namespace
        whose selectors they are. Raises Fault too.
        """
        bad, total = pair
        requests = [one for _, every in found for one in every]
        if any(series for series, _ in found) or not requests:
            return
        names, others = await queries.split_matchers(bad, what, who)
        names_of_all, asked = await queries.split_matchers(total, what, who)
        if not names:
            problem = "it names no metric"
        elif names == names_of_all and names[0].sign == "=":
            problem = ""
            for match in (match for match in others if match not in asked):
                problem = problem or await _explain_impossible_match(match, requests, who)
        else:
            problem = await self._explain_missing_series(server, names, others, at, who)
        if problem:
            raise NoEvidence(Reason.BAD_SELECTOR_MATCHES_NOTHING, f"{what} is {bad}, and {problem}: change it")

    async def _explain_missing_series(
        self,
        server: PrometheusClient,
        names: Sequence[LabelMatcher],
        others: Sequence[LabelMatcher],
        at: float,
        who: str,
    ) -> str:
        """Which series with these names and labels, whatever their values, are missing; empty when there are some."""
        kept = [match for match in others if match.label == server.connection.enforced_label]
        for match in others:
            if match.sign in ("=", "=~") and not (await _match_values(match, [""], who))[""]:
                kept.append(LabelMatcher(match.label, "", "!="))
        plain = len(names) == 1 and names[0].sign == "="
        bare = queries.build_selector(names[0].value, kept) if plain else queries.build_selector("", [*names, *kept])
        key = (server.connection.name, bare)
        if key not in self._known_selectors:
            query = " or ".join(f"count({bare}{past})" for past in ("", " offset 1h", " offset 1d"))
            number, _ = await server.query_number(query, at)
            if number is None:
                return (
                    f"no series of {bare} is there, nor was there an hour or a day ago (a counter that appears with "
                    "the first error must begin at 0)"
                )
            self._known_selectors.add(key)
        return ""


async def _explain_impossible_match(match: LabelMatcher, series: Iterable[Series], who: str) -> str:
    """Why no series beside these can match; empty when one can."""
    values = {one.labels.get(match.label, "") for one in series}
    known = [(what, words) for what, words in LABEL_VOCABULARIES if values - {""} <= words]
    matching = await _match_values(match, sorted({"", *values}.union(*(words for _, words in known))), who)
    if any(matching[value] for value in values | {""}):
        return ""
    if not any(values):
        return f'no series has the label "{match.label}"'
    shown = ", ".join(sorted(value for value in values if value)[:5])
    if known and not any(matching[word] for _, words in known for word in words):
        return f'{match} matches no {known[0][0]}, and "{match.label}" is one: it is {shown}'
    return ""


async def _match_values(match: LabelMatcher, values: Sequence[str], who: str) -> dict[str, bool]:
    """Which of `values` the matcher matches. All, by a pattern that only RE2 can read, and by one that takes too long:
    Python goes back in a text where RE2 doesn't."""
    if match.sign in ("=", "!="):
        return {value: (value == match.value) is (match.sign == "=") for value in values}
    found = None
    if "[:" not in match.value:  # a class of characters, which Python takes for the characters themselves
        question = {"pattern": match.value, "texts": list(values)}
        found = SANDBOX.get_cached("patterns", question)
        if found is None:
            found = await SANDBOX.run_in_turn(who, SANDBOX.send_question, "patterns", question, keep=True)
    if found is None or isinstance(found, NoAnswer):
        return dict.fromkeys(values, True)
    return {value: one is (match.sign == "=~") for value, one in zip(values, found, strict=True)}
