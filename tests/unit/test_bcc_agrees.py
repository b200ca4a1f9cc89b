# SPDX-License-Identifier: GPL-3.0-or-later
"""What the BCC collector has of its own, held equal to its source: the loader, the contract and the release."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import basics, bundle, live, metrics, orders, status
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import desired as bcc_desired
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.service import Service
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import ATTACH_KINDS, AttachKind
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.orders import parse_scope
from ansible_collections.ebpf.fleet.plugins.module_utils.release import desired, service
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import status_schema

from tests.support.odd_documents import DESIRED, Odd

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "a" * 64
GOOD = (
    b'{"bundle_digest":null,"features":{"runqlat":{"enabled":true,"sample_every":7}},'
    b'"schema":"ebpf.fleet/desired/v1"}\n'
)


# ---- the release ----


def test_desired_json_has_one_set_of_words() -> None:
    assert (bcc_desired.SCHEMA, frozenset(bcc_desired.KEYS)) == (desired.SCHEMA, desired.KEYS)
    assert (basics.ENGINE,) == desired.FALLBACKS


@pytest.mark.parametrize("odd", DESIRED, ids=[odd.name for odd in DESIRED])
def test_both_readers_of_desired_json_take_the_same_files(tmp_path: Path, odd: Odd) -> None:
    path = tmp_path / "desired.json"
    path.write_bytes(odd.make(GOOD))
    taken = bcc_desired.read_desired(path, DIGEST).error is None
    assert taken is (desired.parse_desired(path.read_bytes()) is not None) is odd.readable


def test_the_unit_has_the_name_by_which_the_kill_script_finds_the_process() -> None:
    assert f"{basics.NAME}.service" == service.COLLECTOR_UNIT
    assert len(basics.NAME) <= 15


# ---- the contract ----


@pytest.mark.parametrize("kind", ATTACH_KINDS, ids=lambda kind: kind.name)
def test_it_attaches_to_what_a_contract_may_name(kind: AttachKind) -> None:
    """Which targets of these it reads is held by test_requirements, over the table of cases."""
    assert (bundle.HOOK.fullmatch(f"attach:{kind.name}:sched_switch") is not None) is bool(kind.bcc)


# ---- the loader ----


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        ("global", "EF_KILLED_GLOBAL"),
        ("feature=runqlat", "EF_KILLED_FEATURE"),
        ("kernel_family=6.1", "EF_KILLED_FAMILY"),
        ("kernel_family=debian-6.1", "EF_KILLED_FAMILY"),
    ],
)
def test_an_order_that_a_person_gives_is_obeyed_by_its_name(scope: str, code: str) -> None:
    name = parse_scope(scope).order
    assert orders.judge_order(name, ["6.1", "debian-6.1"], ["runqlat"]) is True
    assert orders.Order(name, "").code == code
    assert code in orders.KILL_CODES
    assert f'"{code}"' in (ROOT / "bpf/loader/control/orders.c").read_text()


def test_the_slots_of_counters_and_histogram_are_those_of_the_objects() -> None:
    header = (ROOT / "bpf/include/ef.h").read_text()
    slots = re.findall(r"\bEF_(PRODUCED|DELIVERED|DROPPED|SAMPLED_OUT)\b", header)
    assert tuple(dict.fromkeys(slot.lower() for slot in slots)) == live.COUNTERS
    found = re.search(r"EF_HIST_SLOTS\s*=?\s*([0-9]+)", header)
    assert found and int(found[1]) == live.HIST_SLOTS
    for source in ROOT.glob("bpf/features/*/bcc.c"):
        text = source.read_text()
        assert "enum { EF_PRODUCED, EF_DELIVERED, EF_DROPPED, EF_SAMPLED_OUT, EF_COUNTERS };" in text, source
        assert all(int(at) == live.HIST_SUM for at in re.findall(r"#define EF_HIST_SUM ([0-9]+)", text)), source


def loaders_metrics() -> dict[str, tuple[str, str]]:
    """{name: (type, help)} of the loader's own table."""
    text = (ROOT / "bpf/loader/tell/metrics.c").read_text()
    rows = re.findall(r'\.name = "(\w+)",\s*\.type = "(\w+)",\s*\.help =\s*((?:"[^"]*"\s*)+)', text)
    return {f"ebpf_fleet_{name}": (kind, "".join(re.findall('"([^"]*)"', said))) for name, kind, said in rows}


def options(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(state=str(folder), etc=str(folder), run=str(folder), log=str(folder), interval=1)


def test_its_metrics_are_rows_of_the_loaders_table(tmp_path: Path) -> None:
    document = status.document(Service(options(tmp_path), tmp_path).present(), None)
    text = metrics.render(document, [])
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    helps = dict(re.findall(r"^# HELP (\w+) (.+)$", text, re.M))
    table = loaders_metrics()
    assert len(kinds) > 20
    assert {name: (kinds[name], helps[name]) for name in kinds} == {name: table.get(name) for name in kinds}


# ---- who reads its status ----


def present(folder: Path, **changes: Any) -> status.Present:
    return Service(options(folder), folder).present()._replace(**changes)


def test_its_status_is_one_that_an_observation_takes(tmp_path: Path) -> None:
    about = {"name": "ebpf-fleet", "version": "1", "sequence": 7, "digest": DIGEST}
    ready = bundle.Bundle(about, DIGEST, [], [])
    refusal = basics.Reason("EF_FILE_DIGEST", "bcc.c: is not what was signed")
    held = orders.Orders([orders.Order("global", "/run/kill.d/global")], ["/run/kill.d/typo"])
    for changes, state in (
        ({"bundle": ready}, "idle"),
        ({"refusal": refusal}, "refused"),
        ({"bundle": ready, "orders": held}, "killed"),
        ({"bundle": ready, "stopping": True, "orders": held}, "idle"),
    ):
        document = status.document(present(tmp_path, **changes), None)
        assert document["schema"] == status_schema.STATUS_SCHEMA
        assert status_schema.status_fault(document) is None
        assert (document["state"], document["pid"]) == (state, os.getpid())
