"""The sandbox's process: reads one question per line from stdin, writes one answer per line. It ends with stdin.

A question is [language, question]. A language is loaded by its first question, so that a cluster without CEL
expressions needs no memory for them. The process imports nothing else of Modelwright, so that its memory limit can be
small.
"""

from __future__ import annotations

import importlib
import json
import resource
import signal
import sys

from modelwright.sandbox.limits import LANGUAGES, MEMORY_BYTES, QUESTION_CPU_SECONDS


def main() -> None:
    """Answer questions until stdin ends."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    for line in sys.stdin:
        name, question = json.loads(line)
        if name not in LANGUAGES:
            raise ValueError(f"no language of the sandbox: {name}")
        language = importlib.import_module(f"modelwright.sandbox.{name}")
        # The timer kills the process, even in native code. It counts CPU time, so a busy host fails no question.
        signal.setitimer(signal.ITIMER_PROF, QUESTION_CPU_SECONDS if question is not None else 0)
        answer = json.dumps(None if question is None else language.answer_question(question))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
