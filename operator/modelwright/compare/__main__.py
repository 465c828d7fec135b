"""`python -m modelwright.compare`: entry point of the comparer's container."""

from modelwright.compare.command import run_comparer

if __name__ == "__main__":
    raise SystemExit(run_comparer())
