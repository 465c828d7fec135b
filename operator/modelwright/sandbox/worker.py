"""The sandbox's process: one question a line on stdin, one answer a line on stdout. It ends when stdin does.

A question is [language, question]. A language is loaded when it is first asked for: a cluster without expressions in
CEL doesn't pay for them. Nothing else of Modelwright is imported, so that the bound on memory may be small.
"""

from __future__ import annotations

import importlib
import json
import resource
import signal
import sys

from modelwright.sandbox.limits import LANGUAGES, MEMORY_BYTES, QUESTION_CPU_SECONDS


def main() -> None:
    """Answer until stdin ends."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    for line in sys.stdin:
        name, question = json.loads(line)
        if name not in LANGUAGES:
            raise ValueError(f"no language of the sandbox: {name}")
        language = importlib.import_module(f"modelwright.sandbox.{name}")
        # Its signal ends the process, whatever native code is at work. CPU time, so that a busy host refuses nobody.
        signal.setitimer(signal.ITIMER_PROF, QUESTION_CPU_SECONDS if question is not None else 0)
        answer = json.dumps(None if question is None else language.answer(question))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
