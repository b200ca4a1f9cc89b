# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout over 50,000 hosts: how long it takes, and the memory of the process that makes it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Iterator

from tests.support.play import ROOT
from tools.bench.report import Result, result

HOSTS = 50_000
# What it may cost: seconds, and MB of the whole process, Python and the hosts themselves included.
LIMIT_SECONDS = 5
LIMIT_MEGABYTES = 500
ROUNDS = 5

PLAN = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan import Wishes, plan
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_holdback import Holdback
hosts = [{"name": f"host-{i:06}.example.org", "cell": f"cell-{i % 100:03}", "region": f"region-{i % 10}",
          "stratum": f"6.{i % 40}/x86_64/debian"} for i in range(int(sys.argv[2]))]
start = time.perf_counter()
made = plan(hosts, Wishes(holdback=Holdback(5, "2027-01-31", "2027-01-01")))
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
                  "hosts": len(made["hosts"]) + len(made["holdback"]["hosts"])}))
"""


def planned(hosts: int) -> dict[str, Any]:
    """Seconds, megabytes and hosts of one plan, in a process of its own."""
    command = [sys.executable, "-S", "-c", PLAN, str(ROOT / "collections"), str(hosts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["hosts"] == hosts
    return found


def plan() -> Iterator[Result]:
    """A default plan with a holdback, beside what it may cost."""
    rounds = [planned(HOSTS) for _round in range(ROUNDS)]
    name = f"plan of {HOSTS:,} hosts"
    yield result(f"{name}, time", "s", [one["seconds"] for one in rounds], "the limit", [LIMIT_SECONDS])
    yield result(f"{name}, memory", "MB", [one["megabytes"] for one in rounds], "the limit", [LIMIT_MEGABYTES])
