# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's policy: every bad value is named, and what is written is what the loader reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.release.policy import check_policy, render_policy


def test_nothing_said_is_the_defaults() -> None:
    assert render_policy({}) == '{"schema":"ebpf.fleet/policy/v1"}\n'


def test_what_is_right_is_written_as_it_is() -> None:
    policy = {
        "host": {"cpu_millicores": 10, "rss_bytes": 1, "drop_ratio_ppm": 0},
        "features": {"runqlat": {"cpu_millicores": 5, "map_fill_ppm": 1000000}},
        "sink": {"kind": "datagram", "path": "/run/collector.sock"},
    }
    assert json.loads(render_policy(policy)) == {"schema": "ebpf.fleet/policy/v1", **policy}


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ([], "ebpf_fleet_policy: is []"),
        ({"hosts": {}}, "hosts: is not known here; did you mean 'host'?"),
        ({"host": 5}, "host: is 5"),
        ({"host": {"cpu_milicores": 5}}, "did you mean 'cpu_millicores'?"),
        ({"host": {"cpu_millicores": 0}}, "host.cpu_millicores: is 0; give an integer from 1 to 1000000"),
        ({"host": {"cpu_millicores": True}}, "host.cpu_millicores: is True"),
        ({"host": {"cpu_millicores": "5"}}, "host.cpu_millicores: is '5'"),
        ({"host": {"map_fill_ppm": 1000001}}, "host.map_fill_ppm: is 1000001"),
        ({"features": []}, "features: is []"),
        ({"features": {"Runq": {}}}, "features: is 'Runq'; give a feature's name"),
        ({"features": {"runqlat": {"rss_bytes": 5}}}, "features.runqlat.rss_bytes: is not known here"),
        ({"sink": {"kind": "journald"}}, "sink.kind: is 'journald'; did you mean 'journal'?"),
        ({"sink": {"kind": "datagram"}}, "sink.path: is None"),
        ({"sink": {"kind": "datagram", "path": "/" + "x" * 107}}, "sink.path: is "),
        ({"sink": {"kind": "datagram", "path": "/run/../x"}}, "sink.path: is '/run/../x'"),
        ({"sink": {"kind": "datagram", "path": "/run//x"}}, "sink.path: is '/run//x'"),
        ({"sink": {"kind": "datagram", "path": "/run/a b"}}, "sink.path: is '/run/a b'"),
        ({"sink": {"kind": "journal", "files": 3}}, "sink.files: is 3; give it with the kind jsonl only"),
        ({"sink": {"path": "/x"}}, "sink.path: is '/x'; give it with the kind datagram only"),
        ({"sink": {"kind": "journal", "cursor": "/run/c"}}, "sink.cursor: is '/run/c'; give it with the kind jsonl"),
        ({"sink": {"files": 1, "cursor": "/run/c"}}, "sink.cursor: is '/run/c'; give it with the kind jsonl"),
        ({"sink": {"cursor": "run/c"}}, "sink.cursor: is 'run/c'"),
        ({"sink": {"files": 0}}, "sink.files: is 0; give an integer from 1 to 16"),
    ],
)
def test_a_bad_value_is_named(policy: Any, named: str) -> None:
    with pytest.raises(FleetError) as raised:
        check_policy(policy)
    assert raised.value.code == "EF_HOST_POLICY_MALFORMED" and named in raised.value.message


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(FleetError, match="2 problems: host.rss_bytes.*sink.files"):
        check_policy({"host": {"rss_bytes": 0}, "sink": {"files": 0}})


# As the loader has them (bpf/loader/control), and the documentation says.
BOUNDS = {
    "cpu_millicores": (1, 1_000_000), "rss_bytes": (1, 2**50), "map_memory_bytes": (1, 2**50),
    "event_rate_per_second": (1, 10**9), "drop_ratio_ppm": (0, 1_000_000), "map_fill_ppm": (1, 1_000_000),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDS)
def test_each_limit_at_both_ends(name: str) -> None:
    least, most = BOUNDS[name]
    places = ["host", "features"] if name != "rss_bytes" else ["host"]
    for place in places:
        for value, good in ((least, True), (most, True), (least - 1, False), (most + 1, False)):
            policy = {"host": {name: value}} if place == "host" else {"features": {"probe": {name: value}}}
            if good:
                assert check_policy(policy) == policy
            else:
                with pytest.raises(FleetError, match=f"{name}: is {value}; give an integer from {least} to {most}"):
                    check_policy(policy)


@pytest.mark.parametrize(("name", "least", "most"), [("file_bytes", 65536, 2**32), ("files", 1, 16)])
def test_the_numbers_of_a_file_sink_at_both_ends(name: str, least: int, most: int) -> None:
    for value, good in ((least, True), (most, True), (least - 1, False), (most + 1, False)):
        policy = {"sink": {"kind": "jsonl", name: value}}
        if good:
            assert check_policy(policy) == policy
        else:
            with pytest.raises(FleetError, match=f"sink.{name}: is {value}; give an integer from {least} to {most}"):
                check_policy(policy)
