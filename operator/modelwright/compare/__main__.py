"""`python -m modelwright.compare`: entry point of the comparer's container."""

from modelwright.compare.command import main

if __name__ == "__main__":
    raise SystemExit(main())
