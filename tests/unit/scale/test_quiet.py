"""When an operator has come to rest, from samples of its CPU time and the times of its requests."""

from tests.scale.quiet import quiet_since


def busy_until(at: float, until: float) -> list[tuple[float, float]]:
    """Samples every half second: a whole core until `at`, nothing after it."""
    return [(n / 2, min(n / 2, at)) for n in range(int(until * 2) + 1)]


def test_it_rests_from_the_moment_its_cpu_time_no_longer_grows():
    # a twentieth of a core for two seconds may be used at rest
    assert quiet_since(busy_until(3.0, 20), []) == 3.0


def test_the_last_request_counts_as_work():
    assert quiet_since(busy_until(3.0, 20), [1.0, 5.2]) == 5.5


def test_a_request_after_five_seconds_of_silence_is_another_matter():
    assert quiet_since(busy_until(3.0, 20), [8.5]) == 3.0


def test_a_pause_between_requests_is_no_rest():
    assert quiet_since(busy_until(3.0, 20), [3.2, 7.0, 11.5]) == 11.5


def test_a_little_cpu_time_is_used_at_rest_too():
    samples = [(n / 2, n / 2 * 0.04) for n in range(41)]
    assert quiet_since(samples, []) == 0.0


def test_nobody_knows_before_it_was_watched_long_enough():
    assert quiet_since(busy_until(3.0, 7.5), []) is None
    assert quiet_since(busy_until(3.0, 8.0), []) == 3.0
    assert quiet_since([], []) is None
