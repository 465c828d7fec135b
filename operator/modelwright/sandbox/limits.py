"""What the sandbox's process may use, and the languages it reads."""

from typing import Final, Literal, get_args

Language = Literal["cel", "patterns", "promql"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

MEMORY_BYTES: Final = 128 << 20
"""Memory of the process; it is the pod's, which the operator needs."""
MAX_ANSWER_BYTES: Final = 1 << 20
"""Longest answer to one question, as JSON."""
QUESTION_CPU_SECONDS: Final = 1.0
"""Most CPU time for one question."""
QUESTION_SECONDS: Final = 10.0
"""Longest time for one question, on a host that has much else to do."""
START_SECONDS: Final = 30.0
"""Longest time for the process to start, and to load a language, on a host that has much else to do."""
CACHE_BYTES: Final = 4 << 20
"""Answers that are kept, as JSON."""
MAX_FAILED_QUESTIONS: Final = 4096
"""Questions that are kept because they broke the bounds."""
FAILED_QUESTION_SECONDS: Final = 600.0
"""A question that broke the bounds is not asked again for this time. It may have been the host's fault, so that it is
asked again after it."""
BUSY_RETRY_SECONDS: Final = 1.0
"""After this time a pass asks again that found the sandbox busy with its namespace."""
