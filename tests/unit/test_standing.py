# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill orders that stand on hosts, told before a rollout changes anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import kernelfacts
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import standing

CONTRACTS = [
    {"feature": "runqlat", "data_path": "metrics", "signals": [{"sample_every": 1}]},
    {"feature": "exec_events", "data_path": "events", "signals": [{"sample_every": 1}]},
    {"feature": "exec_policy", "data_path": "policy", "signals": [{"sample_every": 1}]},
]


def host(name: str, orders: Any, features: Any = None) -> dict[str, Any]:
    kernel = {"family": "6.1", "distro_family": "debian-6.1"}
    facts = {"kernel": kernel, "distro": {"id": "debian"}, "btf": {"state": "vmlinux"}, "kill_orders": orders}
    answer = {"capabilities": facts}
    return {"inventory_hostname": name, "ebpf_fleet_capability": answer, "ebpf_fleet_features": features}


@pytest.mark.parametrize(
    ("orders", "features", "concerned"),
    [
        ([], None, []),
        (["global"], None, ["global"]),
        (["family.6.1"], None, ["family.6.1"]),
        (["family.debian-6.1"], None, ["family.debian-6.1"]),
        (["family.5.10"], None, []),
        (["feature.runqlat"], None, ["feature.runqlat"]),
        (["feature.tcp_retransmits"], None, []),
        # What the rollout does not bring to the host is not kept off by an order.
        (["feature.exec_policy"], None, []),
        (["feature.exec_policy"], {"exec_policy": {}}, ["feature.exec_policy"]),
        (["feature.runqlat"], {"exec_events": {}}, []),
        (["feature.runqlat"], {"runqlat": {"enabled": "no"}}, []),
        (["feature.runqlat"], '{"runqlat": {}}', ["feature.runqlat"]),
        # What cannot be read permits nothing.
        (["feature.runqlat"], "runqlat", ["feature.runqlat"]),
        (None, None, [standing.UNREADABLE]),
        (["global", "feature.exec_events", "nonsense"], None, ["global", "feature.exec_events"]),
    ],
)
def test_only_an_order_that_keeps_something_of_the_rollout_off_is_told(
    orders: Any, features: Any, concerned: list[str]
) -> None:
    found = standing.standing_orders([host("a", orders, features)], CONTRACTS)
    assert [one.order for one in found] == concerned


def test_an_order_is_told_once_with_its_hosts_and_how_it_is_taken_back() -> None:
    hosts = [host(f"h{i:02}", ["global"] if i < 25 else ["feature.runqlat"]) for i in range(27)]
    first, second = standing.sentences(standing.standing_orders(hosts, CONTRACTS))
    assert "h00, h01" in first and "h19 and 5 more (global), so everything stays off" in first
    assert "-e scope=global -e state=released" in first
    assert second.startswith("a kill order stands on h25, h26 (feature.runqlat), so runqlat stays off there")
    assert "-e scope=feature=runqlat -e state=released" in second


def test_a_family_is_told_as_it_is_ordered() -> None:
    (line,) = standing.sentences(standing.standing_orders([host("a", ["family.6.1"])], CONTRACTS))
    assert "-e scope=kernel_family=6.1 -e state=released" in line


def test_the_orders_of_both_folders_are_read_and_a_folder_that_cannot_be_is_unknown(tmp_path: Path) -> None:
    assert kernelfacts.read_kill_orders(tmp_path) == []
    for place, order in (("etc", "feature.runqlat"), ("run", "global"), ("run", ".hidden")):
        folder = tmp_path / place / "ebpf-fleet/kill.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / order).touch()
    assert kernelfacts.read_kill_orders(tmp_path) == ["feature.runqlat", "global"]
    other = tmp_path / "other"
    (other / "run/ebpf-fleet").mkdir(parents=True)
    (other / "run/ebpf-fleet/kill.d").write_text("no folder")
    assert kernelfacts.read_kill_orders(other) is None
