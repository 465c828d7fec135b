"""`python -m modelwright.scan`: entry point of the scan gate's container."""

from modelwright.scan.command import run_scanner

if __name__ == "__main__":
    raise SystemExit(run_scanner())
