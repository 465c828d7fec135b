"""Load as a command: ``python -m devcluster.load URL --rate 500 --seconds 60``; exits 1 when anything was lost."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from devcluster.load.client import Load, Target, v2_body


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m devcluster.load", description=__doc__)
    parser.add_argument("url", help="http://HOST/v2/models/NAME/infer; HOST goes into the Host header")
    parser.add_argument("--address", help="HOST:PORT to connect to, when not the one of the URL")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second (default 100)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to send (default 10)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds until a request is lost (default 10)")
    parser.add_argument("--fresh", type=float, default=0.2, help="share on connections of their own (default 0.2)")
    parser.add_argument("--body", type=Path, help="file with the request body (default: a V2 request of four zeros)")
    parser.add_argument("--json", type=Path, help="write the whole report here")
    options = parser.parse_args()
    address = None
    if options.address:
        host, _, port = options.address.rpartition(":")
        address = (host, int(port))
    body = options.body.read_bytes() if options.body else v2_body([[0.0] * 4])
    load = Load(
        Target(options.url, body, address), rate=options.rate, timeout=options.timeout, fresh_share=options.fresh
    )
    report = asyncio.run(load.run(seconds=options.seconds))
    print("\n".join(report.lines()))
    if options.json:
        options.json.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    return 1 if report.lost else 0


if __name__ == "__main__":
    sys.exit(main())
