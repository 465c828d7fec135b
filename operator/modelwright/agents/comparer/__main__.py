"""`python -m modelwright.agents.comparer`: entry point of the comparer's container."""

from modelwright.agents.comparer.command import run_comparer

if __name__ == "__main__":
    raise SystemExit(run_comparer())
