# SPDX-License-Identifier: GPL-3.0-or-later
"""Every scenario that is promised is run by a test that exists, and the invariant of all of them can fail."""

from __future__ import annotations

import ast
import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.scenarios.invariant import LEASE_OVER, NOTHING, RUNS, host_faults, ledger_faults

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests/scenarios"
SCENARIOS: dict[str, Any] = yaml.safe_load((FOLDER / "scenarios.yml").read_text())
# As they are promised.
PROMISED = (
    "good release everywhere", "drops over budget", "CPU over budget", "memory growth", "loader crash loop",
    "application latency regression", "feature that loads on only some kernels", "host unreachable before deploy",
    "host unreachable during deploy", "host unreachable after deploy", "host rebooted during bake",
    "controller killed at ten random points, then resumed", "two rollouts at once", "Prometheus down",
    "clock skew of a minute", "disk full", "release quarantined earlier", "freeze window",
    "cell controller killed",
)  # fmt: skip


def functions_of(path: Path) -> dict[str, str]:
    """Each test function of a file with its source."""
    text = path.read_text()
    return {
        node.name: ast.get_source_segment(text, node) or ""
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_each_promised_scenario_is_in_the_list_and_no_other() -> None:
    assert sorted(SCENARIOS) == sorted(PROMISED)


@pytest.mark.parametrize("name", PROMISED)
def test_a_scenario_is_run_by_a_test_that_exists_and_ends_with_the_invariant(name: str) -> None:
    scenario = SCENARIOS[name]
    assert set(scenario) <= {"ends", "where", "tests", "beside"} and scenario["ends"]
    assert scenario["where"] in ("namespaces", "guests")
    for named in scenario["tests"]:
        path, _, function = named.partition("::")
        assert path.startswith("tests/scenarios/")
        source = functions_of(ROOT / path)[function]
        # A helper of the file may end with it.
        whole = (ROOT / path).read_text()
        assert ".check(" in source or any(
            f"{helper}(" in source and ".check(" in whole.partition(f"def {helper}(")[2].partition("\n\n\n")[0]
            for helper in ("stopped_at_the_first_host",)
        ), f"{named} does not hold the invariant at its end"
    for named in scenario.get("beside", []):
        path, _, function = named.partition("::")
        assert (ROOT / path).is_file() and (not function or function in functions_of(ROOT / path)), named


def test_every_test_of_the_suite_is_named_by_a_scenario() -> None:
    named = {one for scenario in SCENARIOS.values() for one in scenario["tests"]}
    there = {f"tests/scenarios/{path.name}::{test}" for path in FOLDER.glob("test_*.py") for test in functions_of(path)}
    assert there == named


def test_the_page_has_each_scenario_as_the_list_has_it() -> None:
    rows = [line for line in (ROOT / "docs/scenarios.md").read_text().splitlines() if line.startswith("| ")][2:]
    assert [[cell.strip() for cell in row.strip("|").split("|")][:2] for row in rows[: len(SCENARIOS)]] == [
        [name, " ".join(one["ends"].split())] for name, one in SCENARIOS.items()
    ]


# --- the invariant -------------------------------------------------------------------------------

D1, D2 = "1" * 64, "2" * 64
PLACE = "/var/lib/ebpf-fleet/releases/1.0.0-111111111111"
GOOD: dict[str, Any] = {
    "loaders": [{"pid": 7, "exe": f"{PLACE}/ebpf-loader", "state": "S", "programs": 2}],
    "current": {"place": PLACE, "digest": D1, "verified": True, "why": ""},
    "status": {"digest": D1, "pid": 7, "state": "running", "reason_code": None},
    "lease": False,
}


def changed(**more: Any) -> dict[str, Any]:
    """GOOD with some of its fields replaced; a dict is merged."""
    seen = copy.deepcopy(GOOD)
    for name, value in more.items():
        seen[name] = {**seen[name], **value} if isinstance(value, dict) and value else value
    return seen


LOADER = GOOD["loaders"][0]
DARK = changed(
    loaders=[{**LOADER, "programs": 0}], status={"state": "idle", "reason_code": "EF_LEASE_EXPIRED"}, lease=True
)


@pytest.mark.parametrize(
    ("seen", "ends", "probation", "fault"),
    [
        (GOOD, (RUNS,), False, None),
        (changed(lease=True), (RUNS,), True, None),
        (changed(lease=True), (RUNS,), False, "still on probation"),
        (changed(loaders=[LOADER, {**LOADER, "pid": 8}]), (RUNS,), False, "2 loaders run"),
        (changed(loaders=[]), (RUNS,), False, "no loader runs"),
        (changed(current={"verified": False, "why": "EF_FILE_DIGEST"}), (RUNS,), False, "EF_FILE_DIGEST"),
        (changed(current={"digest": D2}, status={"digest": D2}), (RUNS,), False, "not one of those"),
        (changed(status={"digest": D2}), (RUNS,), False, "the status is of"),
        (changed(status={"pid": 9}), (RUNS,), False, "the status is of"),
        (changed(loaders=[{**LOADER, "exe": "/var/lib/ebpf-fleet/releases/x/l"}]), (RUNS,), False, "is the current"),
        (changed(loaders=[{**LOADER, "programs": 0}]), (RUNS,), False, "holds 0 programs"),
        (DARK, (LEASE_OVER,), False, None),
        (DARK, (RUNS,), True, "its lease was over"),
        ({**DARK, "loaders": [LOADER]}, (LEASE_OVER,), False, "holds 2 programs"),
        (GOOD, (LEASE_OVER,), False, "its lease should be over"),
        (changed(current={}, loaders=[]), (NOTHING,), False, None),
        (changed(current={}, loaders=[]), (RUNS,), False, "no release is installed"),
        (changed(current={}), (NOTHING,), False, "of no release"),
    ],
)  # fmt: skip
def test_a_host_is_judged_by_what_it_has_and_runs(seen: Any, ends: Any, probation: bool, fault: str | None) -> None:
    found = host_faults("h1", seen, [D1], ends, probation)
    assert (found == []) if fault is None else any(fault in one for one in found), found


def entries(*kinds: str) -> list[Any]:
    """`kind`, `kind N` or `verdict N WORD` of one rollout."""
    made = []
    for text in kinds:
        kind, *rest = text.split()
        data: dict[str, Any] = {"number": int(rest[0])} if rest else {}
        if kind in ("promoted", "rolled_back", "confirmed"):
            data["action"], kind = kind, "action"
        if kind == "verdict":
            data["verdict"] = rest[1]
        made.append(SimpleNamespace(rollout="r", kind=kind, data=data))
    return made


BATCH = ("batch_begun 1", "verdict 1 pass", "confirmed 1", "promoted 1")


@pytest.mark.parametrize(
    ("kinds", "fault"),
    [
        (("started", *BATCH, "batch_begun 2", "verdict 2 fail", "rolled_back 2", "ended"), False),
        (("started", *BATCH, "batch_begun 2", "verdict 2 fail", "rolled_back 2", "batch_begun 3"), True),
        (("started", "batch_begun 1", "verdict 1 fail", "batch_begun 2"), True),
        (("started", "batch_begun 1", "rolled_back 1", "batch_begun 2"), True),
        (("started", "batch_begun 1", "verdict 1 inconclusive", "batch_begun 2"), True),
        (("started", "batch_begun 1", "verdict 1 inconclusive", *BATCH[1:], "batch_begun 2"), False),
        # The controller died with a batch in hand: what it had begun is judged again.
        (("started", *BATCH, "batch_begun 2", "resumed", "batch_begun 2", "verdict 2 pass", "promoted 2"), False),
        (("started", "batch_begun 1", "verdict 1 fail", "rolled_back 1", "ended", "started", *BATCH), False),
    ],
)  # fmt: skip
def test_no_batch_begins_after_one_that_was_not_promoted(kinds: tuple[str, ...], fault: bool) -> None:
    assert bool(ledger_faults(entries(*kinds))) is fault
