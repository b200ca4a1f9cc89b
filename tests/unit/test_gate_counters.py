# SPDX-License-Identifier: GPL-3.0-or-later
"""A counter that goes backwards holds a rollout, whichever it is: it is never a negative measure that passes."""

from __future__ import annotations

import copy
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import counters as gate_counters
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.status_schema import observation_fault

from tests.unit.test_gate import SECOND, check, judge, observation

FEATURE = "status/features/exec_events/"

# Every field of an observation that only grows, and the checks that are made of it.
CUMULATIVE: dict[str, tuple[str, ...]] = {
    "boottime_ns": (),
    "host/cpu_busy_ns": ("host_cpu_delta",),
    "host/cpu_total_ns": ("host_cpu_delta",),
    "host/psi_cpu_some_us": (),
    "host/psi_memory_some_us": (),
    "host/psi_io_some_us": (),
    "unit/n_restarts": ("loader_restarts",),
    "status/boottime_ns": ("loader_cpu", "bpf_cpu", "total_cpu", "drop_ratio", "event_rate"),
    "status/audit_lost": (),
    "status/loader/cpu_ns": ("loader_cpu", "total_cpu"),
    FEATURE + "counters/produced": ("drop_ratio", "accounting"),
    FEATURE + "counters/delivered": ("event_rate", "accounting"),
    FEATURE + "counters/dropped": ("drop_ratio", "accounting"),
    FEATURE + "counters/sampled_out": ("accounting",),
    FEATURE + "consumer/lost": (),
    FEATURE + "consumer/unwritten": (),
    FEATURE + "series/unkept": (),
    FEATURE + "programs/0/run_cnt": (),
    FEATURE + "programs/0/run_time_ns": ("bpf_cpu", "feature_cpu", "total_cpu"),
    "witness/boottime_ns": (),
    "witness/loader/cpu_ns": (),
    "witness/loader/main/cpu_ns": (),
    "witness/loader/main/children_cpu_ns": (),
    "witness/loader/programs/0/run_cnt": (),
    "witness/loader/programs/0/run_time_ns": (),
}
# The others: what is there now, when and who, and what a clock that people set says.
OTHERS = {
    "time_unix_ns", "host/cpus", "host/memory_total_bytes", "host/memory_available_bytes", "host/load1_milli",
    "unit/main_pid", "unit/exit_status", "status/time_unix_ns", "status/pid", "status/started_boottime_ns",
    "status_age_ns", "status/bundle/sequence", "status/loader/rss_bytes", "status/loader/map_memory_bytes",
    FEATURE + "sample_every", FEATURE + "counters/in_flight", FEATURE + "consumer/lag_bytes",
    FEATURE + "consumer/ring_bytes", FEATURE + "consumer/lag_ns", FEATURE + "series/entries",
    FEATURE + "series/max_entries", FEATURE + "links/0", FEATURE + "programs/0/id",
    FEATURE + "programs/0/verified_insns", FEATURE + "degraded/steps",
    *(f"{FEATURE}maps/{index}/{field}" for index in (0, 1) for field in ("max_entries", "entries", "memory_bytes")),
    "application/p95_ns", "application/p99_ns", "witness/loader/main_pid", "witness/loader/pids/0",
    "witness/loader/main/pid", "witness/loader/main/started_boottime_ns", "witness/loader/main/rss_bytes",
    *(f"witness/loader/main/uids/{index}" for index in range(4)), "witness/loader/rss_bytes",
    "witness/loader/memory_bytes", "witness/loader/programs/0/id", "witness/loader/programs/0/links/0",
    "witness/loader/links/0",
}  # fmt: skip


def full() -> dict[str, Any]:
    """A healthy observation with every number that the format knows of one host."""
    found = observation()
    for at, end in ((100, "start"), (110, "end")):
        one = found[end]
        one["time_unix_ns"] = at * SECOND
        one["host"].update(cpus=4, memory_total_bytes=2 * 10**9, load1_milli=10)
        pressures = ("psi_cpu_some_us", "psi_memory_some_us", "psi_io_some_us")
        one["host"].update(dict.fromkeys(pressures, at * 1000))
        one["unit"]["n_restarts"] = 3
        one["application"] = {"p95_ns": 100, "p99_ns": 200}
        one["status"].update(time_unix_ns=at * SECOND, audit_lost=at)
        one["status"]["bundle"]["sequence"] = 1
        feature = one["status"]["features"]["exec_events"]
        feature["consumer"].update(lost=at, unwritten=at, lag_ns=1)
        feature["series"] = {"entries": 1, "max_entries": 2, "unkept": at}
        feature.update(sample_every=1)
        feature["programs"][0]["verified_insns"] = 10
        counters = feature["counters"]
        counters.update(delivered=counters["delivered"] + at, dropped=1, sampled_out=at, in_flight=0)
        counters["produced"] += 2 * at + 1
    for programs in (
        [one["status"]["features"]["exec_events"]["programs"] for one in (found["start"], found["end"])],
        [one["witness"]["loader"]["programs"] for one in (found["start"], found["end"])],
    ):
        for (program,) in programs:
            program["run_cnt"] += 1000
            program["run_time_ns"] += 1000
    for end in ("start", "end"):
        seen = found[end]["witness"]["loader"]
        for counted in (seen, seen["main"], found[end]["status"]["loader"]):
            counted["cpu_ns"] += 1000
        seen["main"]["children_cpu_ns"] = 1000
    assert observation_fault(found) is None
    return found


def numbers(document: Any, path: str = "") -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield from numbers(value, f"{path}/{key}")
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from numbers(value, f"{path}/{index}")
    elif isinstance(document, int) and not isinstance(document, bool):
        yield path[1:]


def put(document: Any, path: str, change: Any) -> None:
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        document = document[part]
    document[last] = change(document[last])


def value_at(document: Any, path: str) -> Any:
    for part in path.split("/"):
        document = document[int(part) if part.isdigit() else part]
    return document


def step_back(path: str) -> dict[str, Any]:
    """The full observation, whose counter at the end is one less than at its start."""
    found = full()
    less = value_at(found["start"], path) - 1
    assert less >= 0
    put(found["end"], path, lambda _now: less)
    return found


def test_every_number_of_an_observation_is_known_as_a_counter_or_as_another() -> None:
    missing = set(numbers(full()["end"])) - set(CUMULATIVE) - OTHERS
    assert missing == set()
    assert set(CUMULATIVE) <= set(numbers(full()["end"]))


def test_an_observation_whose_counters_all_grew_passes_and_says_nothing_of_them() -> None:
    verdict = judge(full(), full())
    assert verdict["verdict"] == "pass", verdict["sentence"]
    assert gate_counters.backwards(full()) == []
    assert "counters_advance" not in {one["check"] for one in verdict["checks"]}


@pytest.mark.parametrize("path", sorted(CUMULATIVE))
def test_a_counter_that_goes_backwards_holds_and_none_of_its_checks_passes(path: str) -> None:
    verdict = judge(step_back(path), full())
    assert verdict["verdict"] != "pass"
    by_name = {one["check"]: one["verdict"] for one in verdict["checks"]}
    passed = [name for name in CUMULATIVE[path] if by_name[name] == "pass"]
    assert passed == []
    if path != "status/boottime_ns":
        # An account that stands still has a check of its own.
        held = check(verdict, "counters_advance")
        assert held["verdict"] == "inconclusive" and path.rsplit("/", 1)[-1] in held["sentence"]
        assert held["measured"] == held["limit"] - 1


@pytest.mark.parametrize("path", [path for path in sorted(CUMULATIVE) if path.startswith("host/")])
def test_a_counter_that_went_backwards_before_the_change_holds_too(path: str) -> None:
    verdict = judge(full(), step_back(path))
    assert verdict["verdict"] == "inconclusive"
    assert "before: host." in check(verdict, "counters_advance")["sentence"]


def test_five_seconds_less_of_busy_time_are_no_negative_load() -> None:
    after = full()
    after["end"]["host"]["cpu_busy_ns"] = after["start"]["host"]["cpu_busy_ns"] - 5 * SECOND
    found = check(judge(after, full()), "host_cpu_delta")
    assert (found["verdict"], found["measured"]) == ("inconclusive", None)


def test_more_busy_time_than_time_is_no_load_either() -> None:
    after = full()
    after["end"]["host"]["cpu_busy_ns"] = after["end"]["host"]["cpu_total_ns"] * 2
    assert check(judge(after, full()), "host_cpu_delta")["verdict"] == "inconclusive"


@pytest.mark.parametrize("field", ["pid", "started_boottime_ns"])
def test_another_process_counts_from_zero_and_is_no_step_backwards(field: str) -> None:
    after = full()
    for one in (after["end"]["status"], after["end"]["witness"]["loader"]["main"]):
        one[field] = one[field] + 1
    after["end"]["status"]["loader"]["cpu_ns"] = 0
    after["end"]["witness"]["loader"]["main"]["cpu_ns"] = 0
    after["end"]["unit"]["n_restarts"] = 0
    assert gate_counters.backwards(after) == []
    # What changed within the window is a restart all the same.
    assert check(judge(after, full()), "loader_restarts")["verdict"] == "fail"


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        ("whole", "whole", ["unit.n_restarts"]),
        (None, None, ["unit.n_restarts"]),
        (None, "whole", []),
        ("whole", None, []),
        ("other", "whole", []),
    ],
)
def test_restarts_are_compared_while_nothing_says_that_it_is_another_process(start: Any, end: Any, told: Any) -> None:
    after = full()
    after["end"]["unit"]["n_restarts"] -= 1
    for name, kind in (("start", start), ("end", end)):
        main = after[name]["witness"]["loader"]["main"]
        # Root saw no process there, or another one.
        after[name]["witness"]["loader"]["main"] = None if kind is None else main
        if kind == "other":
            main["pid"] += 1
    assert [one.field for one in gate_counters.backwards(after)] == told


@pytest.mark.parametrize(
    ("first", "last", "same", "maybe"),
    [
        ((7, 1), (7, 1), True, True),
        ((7, 1), (7, 2), False, False),
        ((7, 1), (8, 1), False, False),
        ((7, 1), (None, None), False, False),
        ((None, None), (7, 1), False, False),
        ((None, None), (None, None), False, True),
        ((7, None), (7, None), True, True),
        ((None, 1), (None, 1), False, False),
    ],
)
def test_one_process_at_both_ends(first: Any, last: Any, same: bool, maybe: bool) -> None:
    ends = [{"pid": pid, "started_boottime_ns": at} for pid, at in (first, last)]
    assert gate_counters._same(*ends) is same and gate_counters._same(*ends, maybe=True) is maybe


def test_another_program_counts_from_zero_and_is_no_step_backwards() -> None:
    after = full()
    for programs in (
        after["end"]["status"]["features"]["exec_events"]["programs"],
        after["end"]["witness"]["loader"]["programs"],
    ):
        programs[0].update(id=2, run_cnt=0, run_time_ns=0)
    assert gate_counters.backwards(after) == []


def test_many_are_counted_and_the_first_told() -> None:
    after = full()
    start = copy.deepcopy(after["end"])
    after["end"] = {**after["start"], "boottime_ns": after["end"]["boottime_ns"]}
    after["start"] = start
    found = check(judge(after, full()), "counters_advance")
    assert " more" in found["sentence"] and found["sentence"].count(" from ") == 5


@pytest.mark.parametrize("field", ["boottime_ns", "host/cpu_busy_ns", "host/cpu_total_ns"])
@pytest.mark.parametrize("boot", ["one", "two"])
def test_a_counter_that_went_backwards_between_the_windows_holds_unless_the_host_was_started_again(
    field: str, boot: str
) -> None:
    before, after = {**observation(50 * SECOND), "boot_id": "one"}, {**observation(), "boot_id": boot}
    place = after["start"]
    *path, name = field.split("/")
    for key in path:
        place = place[key]
    for less, expected in ((0, []), (1, [f"since before: {field.replace('/', '.')}"])):
        end = before["end"]
        for key in path:
            end = end[key]
        place[name] = end[name] - less
        found = [one for one in judge(after, before)["checks"] if one["check"] == "counters_advance"]
        assert len(found) == (len(expected) if boot == "one" else 0)
        assert all(expected[0] in one["sentence"] and one["verdict"] == "inconclusive" for one in found)


@pytest.mark.parametrize(("many", "more"), [(4, ""), (5, ""), (6, " and 1 more")])
def test_five_counters_are_named_and_the_others_are_counted(many: int, more: str) -> None:
    found = full()
    names = ["cpu_busy_ns", "cpu_total_ns", "psi_cpu_some_us", "psi_memory_some_us", "psi_io_some_us"]
    for name in names[:many]:
        found["end"]["host"][name] = 0
    if many > len(names):
        found["end"]["unit"]["n_restarts"] = 0
    sentence = check(judge(found), "counters_advance")["sentence"]
    assert sentence.endswith(more) and sentence.count(" to 0") == min(many, 5), sentence
    assert (" more" in sentence) is bool(more)
