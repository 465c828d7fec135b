"""`python -m modelwright.scan`: entry point of the scan gate's container."""

from modelwright.scan.command import main

if __name__ == "__main__":
    raise SystemExit(main())
