"""`python -m scripts.docgen generate|check`: writes the generated documentation pages, or compares them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modelwright.cli.crd import GenerateError
from scripts.docgen.pages import diff_pages, write_pages


def main(arguments: list[str] | None = None) -> int:
    """Run the subcommand in `arguments` (default: the process's); return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.docgen", description="Generated documentation pages")
    parser.add_argument("action", choices=("generate", "check"), help="write the pages, or show how they have drifted")
    parser.add_argument("--root", type=Path, default=Path(), help="root of the repository (default: here)")
    options = parser.parse_args(arguments)
    try:
        if options.action == "generate":
            changed = write_pages(options.root)
            print("\n".join(f"wrote {name}" for name in changed) or "nothing to do: every page is up to date")
            return 0
        diff = diff_pages(options.root)
    except GenerateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if diff:
        print(diff, end="")
        print("error: documentation pages have drifted: run `python -m scripts.docgen generate`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
