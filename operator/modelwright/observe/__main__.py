"""`python -m modelwright.observe`: entry point of the observer's container."""

from modelwright.observe.command import main

if __name__ == "__main__":
    raise SystemExit(main())
