# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.soak --minutes 30`: a soak; its report is build/soak/report.json, exit 1 when it found anything."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.loader.bundles import Trust, make_key
from tests.soak.soak import Plan, soak

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds from fault to fault")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("EBPF_FLEET_SEED", time.time_ns() % 100_000)))
    parser.add_argument("--out", type=Path, default=BUILD / "soak" / "report.json")
    return parser.parse_args(arguments)


def run(plan: Plan) -> dict[str, Any]:
    """A soak of the loader and the objects in build/ (EBPF_FLEET_LOADER names another loader)."""
    built = BUILD / "loader" / platform.machine() / "ebpf-loader"
    loader = Path(os.environ.get("EBPF_FLEET_LOADER", built))
    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-soak-") as name:
        folder = Path(name)
        return soak(loader, BUILD / "features", folder / "host", Trust(folder / "trust", make_key(folder)), plan)


def say(report: dict[str, Any]) -> None:
    print(f"soak: {report['seconds']:.0f} s, seed {report['plan']['seed']}, {len(report['faults'])} faults, "
          f"{report['statuses']} statuses, memory {report['memory']}")  # fmt: skip
    for name, counters in sorted(report["counters"].items()):
        print(f"soak: {name}: {counters}")
    for what, why in report["not_injected"].items():
        print(f"soak: not injected: {what}: {why}")
    for each in report["violations"]:
        print(f"soak: VIOLATION: {each}")
    print(f"soak: {'FAILED' if report['violations'] else 'good'}")


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    plan = Plan(options.minutes * 60, options.every, options.seed)
    print(f"soak: {options.minutes:g} minutes, seed {plan.seed} (EBPF_FLEET_SEED repeats its faults)", flush=True)
    report = run(plan)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    say(report)
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
