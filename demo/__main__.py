"""``python -m demo``: runs the demo, from no cluster to an automatically retrained model; exit code 0 only when
every step succeeded."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo import figures
from demo.console import DemoError, Story
from demo.loop import Loop
from demo.story import Demo
from devcluster import ClusterError
from devcluster.processes import interrupt_on_sigterm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second during the rollouts (default 20)")
    parser.add_argument(
        "--figures",
        type=Path,
        nargs="?",
        const=figures.PATH,
        help="write what was measured as JSON (default docs/figures/demo.json)",
    )
    options = parser.parse_args()
    interrupt_on_sigterm()
    story = Story(Demo.STEPS + Loop.STEPS)
    demo = Demo(story, options.rate)
    loop = Loop(demo)
    code = 0
    try:
        demo.run()
        loop.run()
        demo.print_summary()
    except (DemoError, ClusterError) as error:
        story.failed(str(error))
        code = 1
    except KeyboardInterrupt:
        story.failed("stopped; `make demo` goes on from here, `make cluster-down` takes everything down")
        code = 130
    story.show(f"\n[bold]{'Done' if code == 0 else 'Ended'} after {story.elapsed():.0f} s[/]")
    if options.figures and code == 0:
        command = " ".join(["python -m demo", *sys.argv[1:]])
        figures.write(options.figures, command, figures.collect_figures(demo, loop.facts))
        story.say(f"figures written to {options.figures}")
    return code


if __name__ == "__main__":
    sys.exit(main())
