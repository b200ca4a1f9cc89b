# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators' JMESPath expressions at bounded cost.

An expression is refused when it is read if it is long, deep or made of many parts. It is evaluated in
a process of its own that has limits of CPU time, memory and duration. A document is given as data
only: no text of a host ever becomes a part of an expression.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

CHARACTERS_LIMIT = 1_000
BRACKETS_LIMIT = 20
NODES_LIMIT = 150
DEPTH_LIMIT = 40
FUNCTIONS_LIMIT = 10
PROJECTIONS_LIMIT = 12
# Projections within one another multiply the work.
NESTED_PROJECTIONS_LIMIT = 5

SECONDS_EACH = 3.0
# All hosts together: an expression that is slow on one host is slow on a thousand.
SECONDS_ALL = 15.0
# The start of a Python on a controller that is busy with a play.
SECONDS_TO_START = 30.0
MEMORY_LIMIT = 1 << 30
DOCUMENT_LIMIT = 16 << 20
ANSWER_LIMIT = 4_096

PROJECTIONS = ("projection", "value_projection", "filter_projection", "flatten")

# Reads {"expression", "document"} a line, answers {"value"} or {"error"} a line. The value is a number or is
# described, so that an answer is short whatever the result is.
WORKER = r"""
import json, resource, sys
limit, seconds = int(sys.argv[1]), int(sys.argv[2])
import jmespath
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
print("ready", flush=True)
for line in sys.stdin:
    try:
        asked = json.loads(line)
        value = jmespath.search(asked["expression"], asked["document"])
        if isinstance(value, bool) or not isinstance(value, (int, float, str, type(None))):
            size = f" of {len(value)}" if isinstance(value, (list, dict)) else ""
            answer = {"error": f"the expression gave {type(value).__name__}{size}, which is not a number"}
        elif isinstance(value, str):
            answer = {"value": value[:100]}
        else:
            answer = {"value": value}
    except MemoryError:
        answer = {"error": "it needs more memory than is allowed"}
    except RecursionError:
        answer = {"error": "it is nested too deep"}
    except Exception as error:
        answer = {"error": str(error)[:1000]}
    print(json.dumps(answer), flush=True)
"""


class ExpressionError(OneCodeError, ValueError):
    """An expression that is refused, or that could not be evaluated; the message says why and the remedy."""

    code = "EF_ARGUMENT"


def refuse_expensive(expression: str, parse: Any) -> None:
    """ExpressionError for what is not JMESPath or may cost too much; `parse` gives JMESPath's tree."""
    if len(expression) > CHARACTERS_LIMIT:
        raise ExpressionError(f"has {len(expression)} characters; at most {CHARACTERS_LIMIT} are allowed")
    if deepest_bracket(expression) > BRACKETS_LIMIT:
        raise ExpressionError(f"is nested deeper than {BRACKETS_LIMIT} brackets; split it into several checks")
    try:
        tree = parse(expression)
    except RecursionError as error:
        raise ExpressionError("is nested too deep; split it into several checks") from error
    for what, count, limit in measures(tree):
        if count > limit:
            raise ExpressionError(f"has {count} {what}; at most {limit} are allowed; make it simpler or split it")


def deepest_bracket(expression: str) -> int:
    """How deep brackets of all kinds are nested; those within quotes count too, which errs on the safe side."""
    depth = deepest = 0
    for letter in expression:
        if letter in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in ")]}":
            depth = max(0, depth - 1)
    return max(deepest, expression.count("!"), expression.count("&"))


def measures(tree: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """(what, how many, how many are allowed) of a JMESPath tree."""
    nodes = functions = projections = 0
    depth = nested = 1
    left = [(tree, 1, 0)]
    while left:
        node, level, inside = left.pop()
        kind = node.get("type")
        nodes += 1
        functions += kind == "function_expression"
        projections += kind in PROJECTIONS
        inside += kind in PROJECTIONS
        depth, nested = max(depth, level), max(nested, inside)
        left += [(child, level + 1, inside) for child in node.get("children", []) if isinstance(child, dict)]
    return [
        ("parts", nodes, NODES_LIMIT),
        ("levels", depth, DEPTH_LIMIT),
        ("functions", functions, FUNCTIONS_LIMIT),
        ("wildcards and filters", projections, PROJECTIONS_LIMIT),
        ("wildcards and filters within one another", nested, NESTED_PROJECTIONS_LIMIT),
    ]


class Evaluator:
    """Evaluates expressions in a worker process. Close it, or use it in a `with`."""

    def __init__(self, seconds_each: float = SECONDS_EACH, seconds_all: float = SECONDS_ALL) -> None:
        self.seconds_each, self.seconds_all = seconds_each, seconds_all
        self.worker: subprocess.Popen[bytes] | None = None
        self.spent: dict[str, float] = {}
        self.stopped: set[str] = set()

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def search(self, expression: str, document: Any) -> Any:
        """The value of an expression over one host's document. Raises ExpressionError."""
        if expression in self.stopped or self.spent.get(expression, 0.0) >= self.seconds_all:
            raise ExpressionError(self._too_slow())
        asked = json.dumps({"expression": expression, "document": document}).encode() + b"\n"
        if len(asked) > DOCUMENT_LIMIT:
            raise ExpressionError(f"the host's document has {len(asked)} bytes, more than {DOCUMENT_LIMIT}")
        worker = self._ready_worker()
        begin = time.monotonic()
        line = self._exchange(worker, asked, begin + self.seconds_each)
        self.spent[expression] = self.spent.get(expression, 0.0) + time.monotonic() - begin
        if line is None:
            # Whether it was slow or ended by a limit: it would do the same on the next host.
            self.stopped.add(expression)
            self.close()
            raise ExpressionError(self._too_slow())
        answer = json.loads(line)
        if "error" in answer:
            raise ExpressionError(printable(answer["error"], 300))
        return answer["value"]

    def _too_slow(self) -> str:
        return (
            f"it took longer than {self.seconds_each:g} s for a host or {self.seconds_all:g} s for all, or more "
            "memory than is allowed, and was stopped; make it simpler: fewer wildcards within one another"
        )

    def _ready_worker(self) -> subprocess.Popen[bytes]:
        if self.worker is not None and self.worker.poll() is None:
            return self.worker
        self.close()
        seconds = int(self.seconds_all * 4) + 10
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.startswith("/"))}
        self.worker = subprocess.Popen(
            [sys.executable, "-B", "-c", WORKER, str(MEMORY_LIMIT), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
        )
        for pipe in (self.worker.stdin, self.worker.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        if self._exchange(self.worker, b"", time.monotonic() + SECONDS_TO_START) != b"ready\n":
            self.close()
            raise ExpressionError("the process that evaluates expressions did not start; is jmespath installed here?")
        return self.worker

    def _exchange(self, worker: subprocess.Popen[bytes], asked: bytes, deadline: float) -> bytes | None:
        """Write all of `asked` and read one line; None at the deadline, or where the worker has ended."""
        assert worker.stdin is not None and worker.stdout is not None
        got, left = b"", memoryview(asked)
        with selectors.DefaultSelector() as selector:
            selector.register(worker.stdout, selectors.EVENT_READ)
            if left:
                selector.register(worker.stdin, selectors.EVENT_WRITE)
            while not got.endswith(b"\n"):
                seconds = deadline - time.monotonic()
                if seconds <= 0 or len(got) > ANSWER_LIMIT:
                    return None
                for key, _events in selector.select(seconds):
                    if key.fileobj is worker.stdout:
                        part = os.read(worker.stdout.fileno(), ANSWER_LIMIT)
                        if not part:
                            return None
                        got += part
                        continue
                    left = left[_write(worker.stdin.fileno(), left) :]
                    if not left:
                        selector.unregister(worker.stdin)
        return got

    def close(self) -> None:
        """End the worker."""
        worker, self.worker = self.worker, None
        if worker is None:
            return
        worker.kill()
        for pipe in (worker.stdin, worker.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        worker.wait()


def _write(fd: int, data: memoryview) -> int:
    """How much a pipe took; a worker that has ended takes all, and is found out when it does not answer."""
    try:
        return os.write(fd, data[:65_536])
    except BrokenPipeError:
        return len(data)
