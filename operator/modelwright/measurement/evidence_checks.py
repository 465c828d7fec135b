"""Checks of measured numbers: a number that decides nothing is no evidence."""

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
"""Possible values of a label whose present values are all among them: (name of the vocabulary, its values)."""


SeriesPair = Sequence[tuple[Series, ...]]
"""Series of bad requests, and of all requests, of one revision."""


class NoEvidence(Exception):
    """There are numbers that decide nothing; `reason` is that of the verdict. Never leaves this package."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def require_single_scrape(growth: CounterGrowth) -> tuple[tuple[Series, ...], ...]:
    """Return the series of each selector. Raises NoEvidence for a target that is scraped twice and can't be counted."""
    if growth.doubled:
        message = f"{growth.doubled}: let one job of one Prometheus scrape it, or name that job in the selector"
        raise NoEvidence(Reason.TARGET_SCRAPED_TWICE, message)
    return growth.groups


def compute_shares(pairs: Sequence[SeriesPair], start: float, end: float) -> RequestShares:
    """Compute the shares of bad requests of the candidate and, when there is a second pair, of the serving revision; of
    blocks too then. Raises NoEvidence."""
    try:
        arms = [counters.count_arm(bad, total, start, end) for bad, total in pairs]
    except counters.MoreBadThanTotal as error:
        message = f"{error}: the selector of all requests must match the bad ones too"
        raise NoEvidence(Reason.MORE_BAD_THAN_ALL, message) from None
    if len(arms) == 1:
        return RequestShares(arms[0], None)
    ends = tuple(block_ends(start, end))
    candidate, serving = (counters.count_arm_blocks(bad, total, start, ends) for bad, total in pairs)
    return RequestShares(arms[0], arms[1], blocks=(candidate, serving))


async def explain_missing_data(server: PrometheusClient, query: str, at: float, namespace: str) -> str:
    """Explain why a number of `query` at `at` (unix seconds) is no measurement; empty when it is one.

    It is none when the query gives a number without any data, and there is no data. `namespace`: whose query it is.
    Raises MeasurementError.
    """
    parsed = await queries.try_parse_query(query, "prometheus.query", namespace)
    if parsed is None or not parsed.always_gives_number:
        return ""
    if not parsed.presence_query:
        return "the query reads no series, so its number measures nothing"
    number, _ = await server.query_number(parsed.presence_query, at)
    return "" if number is not None else "the query gives a number without any data, and none of its series is there"


@dataclass(slots=True)
class SelectorChecks:
    """Tells a misspelt selector of bad requests from one without any bad request.

    `_known_selectors`: (connection, selector) of which some series exist.
    """

    _known_selectors: set[tuple[str, str]] = field(default_factory=set)

    async def check_bad_selector(
        self,
        server: PrometheusClient,
        pair: Sequence[str],
        series: Sequence[SeriesPair],
        field: str,
        at: float,
        namespace: str,
    ) -> None:
        """Raise NoEvidence when the first selector of `pair` (bad, all) has matched no series, and can match none.

        `series`: series of the two selectors for each revision. `field`: place of the first selector, for messages.
        `namespace`: whose selectors they are. Raises MeasurementError too.
        """
        bad, total = pair
        requests = [one for _, group in series for one in group]
        if any(bad_series for bad_series, _ in series) or not requests:
            return
        names, others = await queries.split_matchers(bad, field, namespace)
        names_of_all, others_of_all = await queries.split_matchers(total, field, namespace)
        if not names:
            problem = "it names no metric"
        elif names == names_of_all and names[0].sign == "=":
            problem = ""
            for matcher in (matcher for matcher in others if matcher not in others_of_all):
                problem = problem or await _explain_impossible_match(matcher, requests, namespace)
        else:
            problem = await self._explain_missing_series(server, names, others, at, namespace)
        if problem:
            raise NoEvidence(Reason.BAD_SELECTOR_MATCHES_NOTHING, f"{field} is {bad}, and {problem}: change it")

    async def _explain_missing_series(
        self,
        server: PrometheusClient,
        names: Sequence[LabelMatcher],
        others: Sequence[LabelMatcher],
        at: float,
        namespace: str,
    ) -> str:
        """Name the missing series with these names and labels, of any value; empty when there are some."""
        kept = [matcher for matcher in others if matcher.label == server.connection.enforced_label]
        for matcher in others:
            if matcher.sign in ("=", "=~") and not (await _match_values(matcher, [""], namespace))[""]:
                kept.append(LabelMatcher(matcher.label, "", "!="))
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


async def _explain_impossible_match(matcher: LabelMatcher, series: Iterable[Series], namespace: str) -> str:
    """Explain why no series beside these can match; empty when one can."""
    values = {one.labels.get(matcher.label, "") for one in series}
    vocabularies = [(name, members) for name, members in LABEL_VOCABULARIES if values - {""} <= members]
    matching = await _match_values(
        matcher, sorted({"", *values}.union(*(members for _, members in vocabularies))), namespace
    )
    if any(matching[value] for value in values | {""}):
        return ""
    if not any(values):
        return f'no series has the label "{matcher.label}"'
    shown = ", ".join(sorted(value for value in values if value)[:5])
    if vocabularies and not any(matching[member] for _, members in vocabularies for member in members):
        return f'{matcher} matches no {vocabularies[0][0]}, and "{matcher.label}" is one: it is {shown}'
    return ""


async def _match_values(matcher: LabelMatcher, values: Sequence[str], namespace: str) -> dict[str, bool]:
    """Tell for each of `values` whether the matcher matches it.

    A pattern that only RE2 can read, or that takes too long (Python backtracks where RE2 doesn't), matches all.
    """
    if matcher.sign in ("=", "!="):
        return {value: (value == matcher.value) is (matcher.sign == "=") for value in values}
    matches = None
    if "[:" not in matcher.value:  # a class of characters, which Python takes for the characters themselves
        question = {"pattern": matcher.value, "texts": list(values)}
        matches = SANDBOX.get_cached("patterns", question)
        if matches is None:
            matches = await SANDBOX.run_in_turn(namespace, SANDBOX.send_question, "patterns", question, keep=True)
    if matches is None or isinstance(matches, NoAnswer):
        return dict.fromkeys(values, True)
    return {value: one is (matcher.sign == "=~") for value, one in zip(values, matches, strict=True)}
