"""Entry point: `python -m modelwright run` runs the operator, `selfcheck` checks one, `crd` generates its CRDs."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modelwright", description="Modelwright")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the operator; its settings are environment variables MODELWRIGHT_*")
    commands.add_parser("selfcheck", help="check that the operator's dependencies are there, and that a replica leads")
    crd = commands.add_parser("crd", help="CustomResourceDefinitions, JSON Schemas and admission policies")
    crd.add_argument("action", choices=("generate", "check"), help="write the files, or show how they have drifted")
    crd.add_argument("--root", type=Path, default=Path(), help="root of the repository (default: here)")
    return parser


def _crd(action: str, root: Path) -> int:
    # Only the repository's tooling needs this and its YAML writer; the operator's start should not pay for it.
    from modelwright.cli import crd

    try:
        if action == "generate":
            changed = crd.write_crds(root)
            print("\n".join(f"wrote {name}" for name in changed) or "nothing to do: every generated file is up to date")
            return 0
        diff = crd.diff_crds(root)
    except crd.GenerateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if diff:
        print(diff, end="")
        print("error: generated files have drifted: run `python -m modelwright crd generate`", file=sys.stderr)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the subcommand that `arguments` (default: the process's) name; its exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "crd":
        return _crd(options.action, options.root)
    # The operator's dependencies (kopf, kubernetes) are not needed by `crd`.
    if options.command == "selfcheck":
        from modelwright.app import selfcheck

        return selfcheck.main()
    from modelwright.app.memory import leave_out_synchronous_client

    leave_out_synchronous_client()
    # Imports create no garbage; collecting it takes a tenth of their time.
    gc.disable()
    from modelwright.app import main as app

    gc.freeze()
    gc.enable()
    return app.main()


if __name__ == "__main__":
    sys.exit(main())
