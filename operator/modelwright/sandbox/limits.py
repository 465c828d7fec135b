"""Limits of the sandbox's process, and the languages that it reads."""

from typing import Final, Literal, get_args

Language = Literal["cel", "patterns", "promql"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

MEMORY_BYTES: Final = 128 << 20
"""Memory of the process, which shares that of the operator's pod."""
MAX_ANSWER_BYTES: Final = 1 << 20
"""Maximum size of one answer, as JSON."""
QUESTION_CPU_SECONDS: Final = 1.0
"""Maximum CPU time of one question."""
QUESTION_SECONDS: Final = 10.0
"""Maximum time of one question, for a busy host."""
START_SECONDS: Final = 30.0
"""Maximum time to start the process, or to load a language, for a busy host."""
CACHE_BYTES: Final = 4 << 20
"""Maximum size of all cached answers, as JSON."""
MAX_FAILED_QUESTIONS: Final = 4096
"""Maximum number of remembered questions that exceeded the limits."""
FAILED_QUESTION_SECONDS: Final = 600.0
"""Time for which a question that exceeded the limits is not sent again. The host may have caused it, so the time
ends."""
BUSY_RETRY_SECONDS: Final = 1.0
"""Delay before a reconciliation that raised SandboxBusy is retried."""
