# SPDX-License-Identifier: GPL-3.0-or-later
"""Every variant of every feature on this machine's kernel: a real workload, and the numbers that come of it."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any, Mapping

import pytest

from tests.loader.bundles import Trust
from tests.loader.features import checks, rounds
from tests.loader.service import contract_of

TURNS = [(name, entry["name"]) for name in rounds.NAMES for entry in contract_of(name)["variants"]]
# Why a variant may not run on a kernel; every other reason is a fault of ours.
REFUSALS = {
    "fentry": {"EF_PERMISSION", "EF_NO_ATTACH_POINT"},
    "lsm": {"EF_PERMISSION", "EF_LSM_INACTIVE"},
    "kprobe": {"EF_NO_ATTACH_POINT"},
}


def test_every_feature_has_a_check_of_what_it_counted() -> None:
    assert set(checks.CHECKS) == set(rounds.NAMES)


@pytest.fixture(scope="session")
def run_round(loader: Path, feature_objects: Path, signing_key: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run a round, once in a session; its document."""

    @functools.lru_cache(maxsize=None)
    def run(number: int) -> Mapping[str, Any]:
        folder = tmp_path_factory.mktemp("rounds")
        target = rounds.make_round(folder, number, feature_objects, loader, Trust(folder / "trust", signing_key))
        done = subprocess.run(rounds.command(str(target)), shell=True, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        document: Mapping[str, Any] = json.loads(done.stdout)
        return document

    return run


def hooks_of(name: str, variant: str) -> set[str]:
    """The kinds of hooks of a variant: fentry, kprobe ..."""
    entry = next(each for each in contract_of(name)["variants"] if each["name"] == variant)
    return {str(each).split(":")[1] for each in entry["requires"] if str(each).startswith("attach:")}


@pytest.mark.sample(1)
@pytest.mark.parametrize(("name", "variant"), TURNS)
def test_a_variant_counts_what_the_workload_did_or_says_why_not(run_round: Any, name: str, variant: str) -> None:
    number = [entry["name"] for entry in contract_of(name)["variants"]].index(variant)
    found = run_round(number)
    state, code = checks.reached(found, name)
    if state == "attached":
        checks.check(found, name, variant)
        return
    kinds = hooks_of(name, variant)
    allowed = set().union(*(REFUSALS.get(kind, set()) for kind in kinds))
    assert (state, code in allowed) == ("disabled", True), (code, found["attached"]["features"][name]["reason"])
    pytest.skip(f"this kernel: {found['attached']['features'][name]['reason']}")


@pytest.mark.slow
def test_every_kind_of_hook_that_needs_no_probe_was_counted(run_round: Any) -> None:
    """Tracepoints work on every kernel: the variants that use only these are never skipped above."""
    plain = [turn for turn in TURNS if hooks_of(*turn) <= {"tp_btf", "raw_tp"}]
    assert {"block_io_latency", "syscall_errors", "tcp_retransmits", "tcp_connect_latency", "oom_kills"} <= {
        name for name, _ in plain
    }
    for name, variant in plain:
        number = [entry["name"] for entry in contract_of(name)["variants"]].index(variant)
        assert checks.reached(run_round(number), name) == ("attached", "EF_OK"), (name, variant)
