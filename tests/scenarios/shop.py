# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP service whose latency Prometheus scrapes: GET / answers, GET /metrics has a histogram of how long that took.

    python3 shop.py ADDRESS PORT

It calls itself ef-shop. Python 3.8, standard library only.
"""

from __future__ import annotations

import bisect
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

# Fine enough that a percentile which lies within a bucket is off by a quarter at most.
BOUNDS = [0.001 * 1.25**step for step in range(32)]
counts = [0] * (len(BOUNDS) + 1)
total = [0.0]


def page() -> bytes:
    lines = ["# HELP shop_seconds How long an answer took.", "# TYPE shop_seconds histogram"]
    below = 0
    for bound, count in zip([*BOUNDS, float("inf")], counts):
        below += count
        name = "+Inf" if bound == float("inf") else f"{bound:.9g}"
        lines.append(f'shop_seconds_bucket{{le="{name}"}} {below}')
    lines += [f"shop_seconds_sum {total[0]!r}", f"shop_seconds_count {below}", ""]
    return "\n".join(lines).encode()


class Handler(BaseHTTPRequestHandler):
    """One request; only what customers ask for is counted."""

    def do_GET(self) -> None:  # noqa: N802  # as http.server calls it
        begun = time.perf_counter()
        metrics = self.path == "/metrics"
        body = page() if metrics else b"sold\n" * 50
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if not metrics:
            took = time.perf_counter() - begun
            counts[bisect.bisect_left(BOUNDS, took)] += 1
            total[0] += took

    def log_message(self, format: str, *arguments: object) -> None:
        return


if __name__ == "__main__":
    Path("/proc/self/comm").write_text("ef-shop")
    HTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
