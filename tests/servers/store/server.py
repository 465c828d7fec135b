#!/usr/bin/env python3
"""A test store over HTTP that is slow, stalls or breaks off: what a fetch has to live with. The standard library alone.

``/ok/NAME``, ``/slow/NAME`` (a little every second, all of it within ten), ``/stall/NAME`` (half, then nothing),
``/break/NAME`` (half, then the connection closes) serve the same file: a model of the V2 test server.
"""

import http.server
import json
import time

CONTENT = json.dumps({"behaviour": {}, "padding": "x" * 20_000}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._head()

    def do_GET(self) -> None:
        way = self.path.split("/")[1]
        if way not in ("ok", "slow", "stall", "break"):
            self.send_error(404)
            return
        self._head()
        if way == "ok":
            self.wfile.write(CONTENT)
        elif way == "slow":
            step = len(CONTENT) // 10 + 1
            for start in range(0, len(CONTENT), step):
                self.wfile.write(CONTENT[start : start + step])
                time.sleep(1)
        else:
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
            self.wfile.flush()
            if way == "stall":
                time.sleep(3600)
            self.close_connection = True

    def _head(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
