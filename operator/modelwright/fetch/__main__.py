"""`python -m modelwright.fetch`: entry point of the fetch image."""

from modelwright.fetch.command import main

if __name__ == "__main__":
    raise SystemExit(main())
