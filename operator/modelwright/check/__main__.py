"""`python -m modelwright.check`: entry point of the infra gate's container."""

from modelwright.check.command import run_prober

if __name__ == "__main__":
    raise SystemExit(run_prober())
