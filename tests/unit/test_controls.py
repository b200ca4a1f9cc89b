# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls of a batch: which hosts, what they are asked by sh, and that no answer of theirs can harm a batch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.filter import controls as filters
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import controls, latency, status_schema
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.load import cpu_delta

from tests.support.httpserver import respond, serving

GOOD = {"p95_ms": 1.5, "p99_ms": 2}


def batches(*sizes: int) -> list[dict[str, Any]]:
    names = iter(range(10**6))
    return [{"number": at, "hosts": [f"h{next(names):04}" for _one in range(size)]} for at, size in enumerate(sizes, 1)]


def strata(given: list[dict[str, Any]], kinds: int = 1, spare: int = 0) -> dict[str, str]:
    hosts = [host for batch in given for host in batch["hosts"]] + [f"spare{at}" for at in range(spare)]
    return {host: f"s{at % kinds}" for at, host in enumerate(hosts)}


# --- which hosts -----------------------------------------------------------------------------------


def test_controls_are_of_later_batches_and_of_none() -> None:
    given = batches(1, 10, 30, 7)
    found = controls.choose(strata(given, spare=2), given, ["spare0", "spare1"])
    assert [len(found[number]) for number in (1, 2, 3, 4)] == [20, 20, 9, 2]
    for batch in given:
        done = {host for one in given if one["number"] <= batch["number"] for host in one["hosts"]}
        assert not done & set(found[batch["number"]])
    assert set(found[3]) == {*given[3]["hosts"], "spare0", "spare1"} and set(found[4]) == {"spare0", "spare1"}


def test_they_are_of_the_batchs_strata_in_equal_parts() -> None:
    given = batches(4, 400)
    kinds = strata(given, kinds=8)
    found = controls.choose(kinds, given, [])[1]
    counted = {kind: sum(kinds[host] == kind for host in found) for kind in ("s0", "s1", "s2", "s3")}
    assert counted == dict.fromkeys(counted, 5) and len(found) == 20


def test_others_fill_up_only_where_too_few_are_of_the_strata() -> None:
    given = [{"number": 1, "hosts": ["a"]}, {"number": 2, "hosts": [f"b{at}" for at in range(30)]}]
    for alike, total in ((5, 5), (4, 20), (0, 20)):
        kinds = {"a": "x", **{f"b{at}": "x" if at < alike else "y" for at in range(30)}}
        found = controls.choose(kinds, given, [])[1]
        assert len(found) == total and sum(kinds[host] == "x" for host in found) == alike


@pytest.mark.parametrize("most", [0, 1, 5, 20, 1000])
def test_there_are_at_most_as_many_as_wanted(most: int) -> None:
    given = batches(1, 5, 60)
    found = controls.choose(strata(given, 3), given, [], most)
    assert {number: len(hosts) for number, hosts in found.items()} == {
        1: min(most, 21), 2: min(most, 60), 3: 0} or most == 0  # fmt: skip
    assert most or set(map(len, found.values())) == {0}


def test_the_same_plan_gives_the_same_hosts_and_each_batch_others() -> None:
    given = batches(5, 5, 5, 500)
    found = controls.choose(strata(given), given, [])
    assert found == controls.choose(strata(given), given, [])
    assert len({tuple(found[number]) for number in (1, 2, 3)}) == 3
    assert len(set(found[1]) & set(found[2])) < 10


def test_a_fleet_is_done_in_time() -> None:
    given = batches(*[5] * 10, *[1000] * 20)
    begun = time.monotonic()
    controls.choose(strata(given, 40), given, [])
    assert time.monotonic() - begun < 5


# --- what they are asked ---------------------------------------------------------------------------


def source(**fields: Any) -> latency.Source:
    found = latency.read_source("x", fields)
    assert found is not None
    return found


def asked(*sources: latency.Source) -> dict[str, Any]:
    """What this machine says as a control."""
    command = controls.script({f"h{at}": one for at, one in enumerate(sources)})
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    found = controls.snapshot(done.stdout)
    assert found is not None, done.stdout
    return found


def test_this_machines_counters_are_told() -> None:
    first, last = asked(), asked()
    assert first["boottime_ns"] <= last["boottime_ns"] and first["application"] is None
    host = last["host"]
    assert 0 < host["memory_available_bytes"] < host["memory_total_bytes"] and host["cpus"] is None
    assert first["host"]["cpu_total_ns"] <= host["cpu_total_ns"] and 0 < host["cpu_busy_ns"] < host["cpu_total_ns"]
    for kind in ("cpu", "memory", "io"):
        assert (host[f"psi_{kind}_some_us"] is not None) == Path("/proc/pressure", kind).exists()


@pytest.mark.parametrize("name", ["latency.json", "it's $(touch x) `y`.json"])
def test_a_file_is_read_where_it_is_fresh(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    one = source(source="file", path=str(path))
    assert (asked(one)["application"], asked(one)["application_error"]) == (None, None)
    path.write_text(json.dumps(GOOD))
    assert asked(one, one)["application"] == {"p95_ns": 1_500_000, "p99_ns": 2_000_000}
    old = time.time() - 100
    os.utime(path, (old, old))
    told = re.search(r"the file: is (\d+) s old", asked(one)["application_error"])
    # The shell that reads it takes its time.
    assert told and 100 <= int(told[1]) <= time.time() - old + 1
    path.unlink()
    os.mkfifo(path)
    assert asked(one)["application"] is None
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert asked(one)["application"] is None
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_command_is_run_as_its_words_and_bounded(tmp_path: Path) -> None:
    assert asked(source(source="command", argv=["/bin/echo", json.dumps(GOOD)]))["application"]["p99_ns"] == 2_000_000
    assert "p95: is not there" in asked(source(source="command", argv=["/bin/echo", "{}"]))["application_error"]
    said = asked(source(source="command", argv=["/bin/sleep", "20"], timeout=0.5))["application_error"]
    assert "is not JSON" in said
    assert asked(source(source="command", argv=["/usr/bin/yes"]))["application_error"]
    assert list(tmp_path.iterdir()) == []


def test_hosts_that_are_held_back_or_in_no_stage_are_controls_of_every_batch() -> None:
    hosts = [{"name": name, "stratum": "s"} for name in ("a", "b", "held", "left")]
    batches = [{"number": 1, "hosts": ["a"]}, {"number": 2, "hosts": ["b"]}]
    plan = {"batches": batches, "left": ["left"], "holdback": {"percent": 5, "hosts": ["held"]}}
    found = filters.rollout_controls(hosts, plan)
    assert {number: sorted(names) for number, names in found.items()} == {
        1: ["b", "held", "left"],
        2: ["held", "left"],
    }
    assert filters.rollout_controls(hosts, {**plan, "left": None, "holdback": None})[2] == []


def test_an_endpoint_is_asked_by_curl_and_never_with_a_token() -> None:
    with serving(lambda request: respond(request, 200, json.dumps(GOOD).encode())) as url:
        assert asked(source(source="http", url=url))["application"] == {"p95_ns": 1_500_000, "p99_ns": 2_000_000}
        secret = asked(source(source="http", url=url, token_file="/etc/hostname"))
        assert (secret["application"], secret["application_error"]) == (None, None)


def test_different_sources_are_not_asked_with_one_command() -> None:
    one, other = (source(source="command", argv=["/bin/echo", text]) for text in ("{}", "[]"))
    assert "/bin/echo" not in controls.script({"a": one, "b": other})
    assert controls.script({"a": one, "b": one}).count("/bin/echo") == 1


# --- what they answer ------------------------------------------------------------------------------


def answer(at: int, busy: int, **more: str) -> dict[str, Any]:
    parts = {
        "uptime": f"{at}.25 9.99",
        "stat": f"cpu  {busy} 0 0 {at * 100 - busy} 0 0 0 0 0 0",
        "meminfo": "MemTotal: 4000 kB\nMemAvailable: 1000 kB",
        "psi_cpu": f"some avg10=0.00 total={at}",
    }
    parts.update(more)
    body = "".join(f"@{name}\n{text}\n" for name, text in parts.items())
    return {"rc": 0, "stdout": f"{controls.MARK}\n{body}@end\n"}


def test_two_answers_are_an_observation() -> None:
    found = controls.observe(answer(100, 1000), answer(110, 1500))
    assert found is not None and status_schema.observation_fault(found) is None
    assert found["window_ns"] == 10 * 10**9
    host = found["end"]["host"]
    assert (host["cpu_busy_ns"], host["psi_cpu_some_us"], host["psi_io_some_us"]) == (15 * 10**9, 110, None)


def test_only_a_control_that_was_measured_at_all_four_moments_counts() -> None:
    whole = {"before_start": answer(100, 1000), "before_end": answer(110, 1100), "after_start": answer(200, 2000),
             "after_end": answer(230, 2600)}  # fmt: skip
    answers: dict[str, Any] = {name: {"good": one, "lost": one} for name, one in whole.items()}
    for name in whole:
        spoiled = {**answers, name: {**answers[name], "lost": {"unreachable": True, "msg": "gone"}}}
        found = controls.records(spoiled, {})
        assert list(found) == ["good"] and cpu_delta(found["good"]) == 100_000
        del spoiled[name]["lost"]
        assert list(controls.records(spoiled, {})) == ["good"]
    assert list(controls.records(answers, {})) == ["good", "lost"]
    assert controls.records({}, {}) == {} and controls.records({"before_start": None}, {}) == {}


@pytest.mark.parametrize(
    "spoiled",
    [None, {}, {"rc": 1, "stdout": answer(110, 1)["stdout"]}, {"rc": 0}, {"rc": 0, "stdout": 5},
     {"rc": 0, "stdout": ""}, {"rc": 0, "stdout": "ebpf-fleet-control 2\n@uptime\n1.00 \n@end\n"},
     {"rc": 0, "stdout": answer(110, 1)["stdout"].replace("@end", "")}, answer(110, 1, uptime="soon"),
     answer(110, 1, uptime="9" * 13 + ".00 "), answer(99, 1), answer(100, 1), {"unreachable": True},
     answer(110, 1, meminfo=f"MemTotal:       {'9' * 40} kB")],
)  # fmt: skip
def test_what_is_not_usable_is_no_observation(spoiled: Any) -> None:
    assert controls.observe(answer(100, 1000), spoiled) is None


def test_what_a_control_says_wrongly_is_not_measured_and_nothing_else() -> None:
    found = controls.observe(answer(100, 1000), answer(110, 0, stat="cpu  x y", meminfo="MemAvailable: lots",
                                                       psi_cpu="some total=-1"))  # fmt: skip
    assert found is not None and status_schema.observation_fault(found) is None
    host = found["end"]["host"]
    assert (host["cpu_busy_ns"], host["memory_available_bytes"], host["psi_cpu_some_us"]) == (None, None, None)


@pytest.mark.parametrize(
    ("more", "named"),
    [({"application": '{"p95_ns": 1}', "now": "100"}, "p99: is not there"),
     ({"application": "no", "now": "1"}, "is not JSON"),
     ({"application": '{"p95_ns": 1, "p99_ns": 2}', "now": "soon"}, "control's application"),
     ({"application": '{"p95_ns": 1, "p99_ns": 2}', "written": "1"}, "control's application"),
     ({"application": '{"p95_ns": 1, "p99_ns": 2}', "written": "100\n161"}, "the file: is 61 s old"),
     ({"application": '{"p95_ns": 1, "p99_ns": 2, "time_unix_s": 100}', "now": "161"}, "time_unix_s: is 61 s old")],
)  # fmt: skip
def test_a_controls_latency_is_read_as_strictly(more: dict[str, str], named: str) -> None:
    found = controls.snapshot(answer(100, 1, **more)["stdout"])
    assert found is not None and found["application"] is None and named in found["application_error"]


def test_an_age_of_the_hosts_own_holds() -> None:
    told = {"application": '{"p95_ns": 1, "p99_ns": 2}', "written": "100\n161"}
    four = dict.fromkeys(("before_start", "before_end", "after_start", "after_end"))
    answers = {name: {"h": answer(100 + at, 1, **told)} for at, name in enumerate(four)}
    assert controls.records(answers, {"h": 61})["h"]["after"]["end"]["application"] == {"p95_ns": 1, "p99_ns": 2}
