# SPDX-License-Identifier: GPL-3.0-or-later
"""How a feature and the host are measured and held to their budgets, by value; no kernel, no loader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.loader.drivers import ask, build

pytestmark = pytest.mark.apart

NEEDED = ("base/*.c", "bundle/contract.c", "feature/budget.c", "feature/degrade.c", "feature/measure.c",
          "feature/snapshot.c", "feature/unobserved.c")  # fmt: skip
SECOND = 10**9
NAMES = ("map_fill_ppm", "cpu_millicores", "rss_bytes", "map_memory_bytes", "event_rate_per_second", "drop_ratio_ppm")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("feature"), "feature", NEEDED)


# Limits.


@pytest.mark.parametrize("budget", range(6))
def test_a_budget_is_exceeded_above_its_limit_and_a_map_at_it(driver: Path, budget: int) -> None:
    def exceeded(amount: int, limit: int) -> str:
        used, limits = [-1] * 6, [0] * 6
        used[budget], limits[budget] = amount, limit
        return ask(driver, "exceeded", ",".join(map(str, used)), ",".join(map(str, limits)))

    name = NAMES[budget]
    assert exceeded(6, 5) == name
    assert exceeded(5, 5) == (name if name == "map_fill_ppm" else "-")
    assert exceeded(4, 5) == "-"
    assert exceeded(1, 0) == name
    assert exceeded(-1, 0) == exceeded(6, -1) == exceeded(-1, -1) == "-"


def test_a_map_may_be_full_where_its_limit_says_so(driver: Path) -> None:
    assert ask(driver, "exceeded", "1000000,0,0,0,0,0", "1000000,0,0,0,0,0") == "-"
    assert ask(driver, "exceeded", "999999,0,0,0,0,0", "999999,0,0,0,0,0") == "map_fill_ppm"


def test_the_first_budget_that_is_exceeded_is_named(driver: Path) -> None:
    for first in range(6):
        used = ["0"] * first + ["2"] * (6 - first)
        assert ask(driver, "exceeded", ",".join(used), "1,1,1,1,1,1") == NAMES[first]
    assert ask(driver, "exceeded", "0,0,0,0,0,0", "1,1,1,1,1,1") == "-"


@pytest.mark.parametrize(
    ("amount", "limit", "calm"),
    [(79, 100, 1), (80, 100, 0), (0, 100, 1), (-1, 100, 1), (1, -1, 1), (0, 0, 1), (1, 0, 0), (7, 9, 0), (3, 9, 1),
     (4, 9, 0)],
)  # fmt: skip
def test_calm_is_below_four_fifths_of_a_limit(driver: Path, amount: int, limit: int, calm: int) -> None:
    assert ask(driver, "calm", str(amount), str(limit)) == str(calm)


def test_what_is_told_of_budgets_is_those_of_the_host_or_of_a_feature(driver: Path) -> None:
    numbers = dict(zip(NAMES, range(1, 7), strict=True))
    for of_host, missing in (("1", {"map_fill_ppm", "drop_ratio_ppm"}), ("0", {"rss_bytes"})):
        assert json.loads(ask(driver, "amounts", of_host)) == {
            name: {"measured": number, "limit": None} for name, number in numbers.items() if name not in missing
        }


# Steps down, and up again.


def fall(driver: Path, *steps: str) -> list[list[str]]:
    """[step, depth, thinning, patience, verdict] after each, and at the end [taken, measured]."""
    return [
        line.split()[1:] if line[0].isalpha() else line.split() for line in ask(driver, "fall", *steps).splitlines()
    ]


def test_each_step_down_and_up_again(driver: Path) -> None:
    found = fall(driver, "down1", "down1", "down1", "down2", "down3", "up", "up", "up", "up", "up")
    assert [one[:3] for one in found[:-1]] == [
        ["sampling", "1", "4"], ["sampling", "2", "16"], ["sampling", "3", "64"], ["reduced", "4", "64"],
        ["shed", "5", "64"], ["reduced", "4", "64"], ["sampling", "3", "64"], ["sampling", "2", "16"],
        ["sampling", "1", "4"], ["none", "0", "1"],
    ]  # fmt: skip
    assert [one[0] for one in fall(driver, "down3", "down2", "up")[:-1]] == ["shed", "shed", "reduced"]


def test_what_is_forgotten_is_all_but_the_counts(driver: Path) -> None:
    found = fall(driver, "down1", "down2", "down3", "up", "forget")
    assert found[-2:] == [["none", "0", "0", "0"], ["1", "0"]]


def test_the_second_bad_interval_in_a_row_counts_or_one_at_once(driver: Path) -> None:
    found = fall(driver, "bad", "bad", "bad", "ok", "bad", "ok", "bad", "badnow", "ok", "badnow")
    assert [one[-1] for one in found[:-1]] == ["0", "1", "1", "0", "0", "0", "0", "1", "0", "1"]


def test_twelve_calm_intervals_in_a_row_make_a_step_up(driver: Path) -> None:
    found = fall(driver, "down1", *["calm"] * 11, "good", *["calm"] * 13)
    verdicts = [one[-1] for one in found[1:-1]]
    assert verdicts == ["0"] * 11 + ["0"] + ["0"] * 11 + ["1"] * 2
    assert [one[-1] for one in fall(driver, *["calm"] * 20)[:-1]] == ["0"] * 20, "nothing to step up from"


def waits(driver: Path, *between: str) -> int:
    """Calm intervals until a step up, after these steps."""
    found = fall(driver, *between, *["calm"] * 500)
    return [one[-1] for one in found[len(between) : -1]].index("1") + 1


def test_each_relapse_doubles_the_wait_up_to_sixteen_times(driver: Path) -> None:
    steps = ["down3"]
    found = []
    for _ in range(7):
        found.append(waits(driver, *steps))
        steps += ["up", "down3"]
    assert found == [12, 24, 48, 96, 192, 192, 192]


@pytest.mark.parametrize(("intervals", "wait"), [(719, 24), (720, 12), (721, 12)])
def test_a_fall_long_after_a_recovery_is_no_relapse(driver: Path, intervals: int, wait: int) -> None:
    assert waits(driver, "down3", "up", *["good"] * intervals, "down3") == wait


def test_a_recovery_of_old_makes_no_later_fall_a_relapse(driver: Path) -> None:
    assert waits(driver, "down1", "up", "down1", "down1") == 24
    assert waits(driver, "down1", "up", "down1", "up", *["good"] * 720, "down1") == 12


# Whom an excess of the host falls on: attached, can thin, can reduce, cost, cost order, thinning, reduced.


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([], "-1"),
        (["0,1,1,5,1"], "-1"),
        (["1,1,1,5,1"], "0sampling"),
        (["1,1,1,5,1", "1,1,1,6,1"], "1sampling"),
        (["1,1,1,5,1", "1,1,1,5,1"], "0sampling"),
        (["1,1,1,6,1", "1,1,1,5,9"], "0sampling"),
        (["1,0,1,9,1", "1,1,1,5,1"], "1sampling"),
        (["0,1,1,9,1", "1,1,1,5,1"], "1sampling"),
        (["1,1,1,5,1,63"], "0sampling"),
        (["1,1,1,5,1,64"], "0reduced"),
        (["1,0,1,5,1", "1,0,1,6,1"], "1reduced"),
        (["1,0,1,5,1,0,1", "1,0,1,4,1"], "1reduced"),
        (["1,0,0,9,1", "1,0,1,4,1"], "1reduced"),
        (["1,0,0,9,1", "1,0,0,4,2"], "1shed"),
        (["1,0,0,9,2", "1,0,0,4,2"], "0shed"),
        (["1,0,1,9,1,0,1", "0,0,0,4,2"], "0shed"),
        (["1,1,1,-1,1"], "0sampling"),
        (["1,1,1,-1,1", "1,1,1,0,1"], "1sampling"),
    ],
)
def test_whom_an_excess_of_the_host_falls_on(driver: Path, candidates: list[str], chosen: str) -> None:
    assert ask(driver, "choose", *candidates) == chosen


@pytest.mark.parametrize(
    ("of_host", "budget", "step", "told"),
    [
        (0, 1, 1, "EF_BUDGET_CPU the feature's cpu_millicores was 7 millicores, the limit is 5; step 'sampling'"),
        (1, 1, 2, "EF_BUDGET_HOST_CPU the host's cpu_millicores was 7 millicores, the limit is 5; step 'reduced'"),
        (1, 2, 3, "EF_BUDGET_HOST_MEMORY the host's rss_bytes was 7 bytes, the limit is 5; step 'shed'"),
        (0, 5, 3, "EF_BUDGET_DROPS the feature's drop_ratio_ppm was 7 ppm, the limit is 5; step 'shed'"),
    ],
)
def test_the_reason_has_both_numbers_and_the_step(
    driver: Path, of_host: int, budget: int, step: int, told: str
) -> None:
    assert ask(driver, "reason", str(of_host), str(budget), str(step)) == told


# Measures: fill, cpu, rss, memory, rate, drops, and the last interval's cpu and events.


def feature(driver: Path, *readings: str) -> list[str]:
    return ask(driver, "feature", *readings).splitlines()


def test_a_first_reading_has_what_is_there_and_no_rate(driver: Path) -> None:
    assert feature(driver, "1000000000,10,1,2,3,100,50,5,10,0,7") == ["500000 -1 -1 58 -1 -1 -1 -1"]


def test_two_readings_make_rates_that_are_rounded_up(driver: Path) -> None:
    first = "1000000000,100,10,5,80,1000,50,5,10,0,500"
    # In two seconds 21 + 9 ns of CPU, 60 events of which 20 sampled out, 3 dropped.
    second = "3000000000,160,30,8,110,1021,50,5,10,0,509"
    assert feature(driver, first, second)[1] == "500000 1 -1 58 20 75000 30 40"
    busy = "3000000000,160,30,8,110,500001000,50,5,10,0,500"
    assert feature(driver, first, busy)[1].split()[1] == "250"
    busier = busy.replace("500001000", "500001001")
    assert feature(driver, first, busier)[1].split()[1] == "251"
    odd = first.replace("1000000000,100", "3000000000,141")
    assert feature(driver, first, odd)[1].split()[4] == "21"


def test_what_is_not_known_is_not_measured(driver: Path) -> None:
    known = ["1000000000", "100", "10", "5", "80", "1000", "50", "5", "10", "0", "500"]
    later = ["3000000000", "160", "30", "8", "110", "1021", "60", "6", "10", "0", "500"]
    whole = feature(driver, ",".join(known), ",".join(later))[1].split()
    assert whole == ["600000", "1", "-1", "68", "20", "75000", "21", "40"]
    # The number that is missing, and what then stands elsewhere.
    for at, gone in {1: {4: "15", 5: "90910", 7: "30"}, 2: {4: "15", 5: "90910", 7: "30"}, 3: {5: "-1"},
                     5: {1: "-1", 6: "-1"}, 6: {3: "-1"}, 7: {0: "1000"}}.items():  # fmt: skip
        one, two = [*known], [*later]
        one[at] = two[at] = "-1"
        expected = [gone.get(place, number) for place, number in enumerate(whole)]
        assert feature(driver, ",".join(one), ",".join(two))[1].split() == expected, at


def test_a_counter_that_began_anew_is_not_measured(driver: Path) -> None:
    first = "1000000000,100,10,5,80,1000,50,5,10,0,500"
    again = "2000000000,20,10,0,3,400,50,5,10,0,500"
    assert feature(driver, first, again)[1] == "500000 -1 -1 58 -1 -1 -1 -1"
    assert feature(driver, first, "none", first)[1:] == ["-1 -1 -1 -1 -1 -1 -1 -1", "500000 -1 -1 58 -1 -1 -1 -1"]
    # More sampled out than produced is no number of events; the ratio is then of what has an outcome.
    assert feature(driver, first, "2000000000,100,110,5,90,1000,50,5,10,0,500")[1].split()[4:6] == ["-1", "0"]


@pytest.mark.parametrize(
    ("passed", "dropped", "ratio"),
    [(100, 0, 0), (100, 1, 10000), (100, 99, 990000), (100, 100, 1000000), (100, 101, 1000000), (0, 1, 1000000),
     (0, 0, -1), (3, 1, 333334)],
)  # fmt: skip
def test_drops_are_a_part_of_what_sampling_let_pass(driver: Path, passed: int, dropped: int, ratio: int) -> None:
    first = "1000000000,0,0,0,0,0,0,0,1,0,0"
    second = f"2000000000,{passed + 7},7,{dropped},0,0,0,0,1,0,0"
    assert feature(driver, first, second)[1].split()[5] == str(ratio)


@pytest.mark.parametrize(
    ("entries", "most", "evicts", "fill"),
    [(0, 10, 0, 1000), (1, 3, 0, 333334), (10, 10, 0, 1000000), (10, 10, 1, 1000), (-1, 10, 0, 1000), (5, 0, 0, 1000)],
)
def test_the_fill_is_of_the_fullest_map_that_evicts_nothing(
    driver: Path, entries: int, most: int, evicts: int, fill: int
) -> None:
    """Another map has 1 of 1000."""
    assert feature(driver, f"5,0,0,0,0,0,0,{entries},{most},{evicts},0")[0].split()[0] == str(fill)


def host(driver: Path, *readings: str) -> list[str]:
    return ask(driver, "host", *readings).splitlines()


def test_the_host_is_measured_by_its_own_and_what_its_features_ran(driver: Path) -> None:
    first, second = "1000000000,5000,1000,70,80,9,10", "3000000000,10005000,2000,71,81,10000000,41"
    # 10,000,000 less 1,000 of its own and 10,000,000 in the kernel, in two seconds; 41 events.
    assert host(driver, first, second) == ["-1 -1 70 80 -1 -1 0 0", "-1 10 71 81 21 -1 0 0"]
    assert host(driver, first, second.replace("10000000,41", "10001001,41"))[1].split()[1] == "11"
    unknown = "3000000000,-1,0,-1,-1,-1,-1"
    assert host(driver, first, unknown)[1] == "-1 -1 -1 -1 -1 -1 0 0"
    assert host(driver, first, "3000000000,9000,0,1,1,-1,5")[1].split()[1] == "-1"
    assert host(driver, first, "3000000000,4000,0,1,1,0,0")[1].split() == ["-1", "0", "1", "1", "0", "-1", "0", "0"]
    assert host(driver, first, "3000000000,3000,0,1,1,0,0")[1].split()[1] == "-1", "less than before"


def test_a_feature_that_nobody_shipped_is_wanted_and_nothing_of_it_ran(driver: Path) -> None:
    for every, told in (("0", "1"), ("1", "1"), ("7", "7")):
        assert ask(driver, "missing", "f", every) == (
            f"f 0 1 3 disabled - {told} -1 11111 0 0 0 EF_NOT_IN_BUNDLE the bundle has no feature 'f'; "
            "remove it from desired.json or deploy a release that has it"
        )


# What it does not see.

GAPS = ("attaching", "down", "reboot", "handover", "kill", "hold", "budget", "unable")
OFF, ATTACHED, KILLED, DISABLED, SHED = "01234"


@pytest.mark.parametrize(
    ("state", "code", "gap"),
    [(KILLED, "EF_KILLED_GLOBAL", "kill"), (SHED, "EF_BUDGET_CPU", "budget"), (DISABLED, "EF_LOAD_REJECTED", "unable"),
     (OFF, "EF_UNKNOWN", "attaching"), (OFF, "-", "attaching"), (OFF, "EF_OK", "attaching"),
     (OFF, "EF_LEASE_EXPIRED", "hold"), (OFF, "EF_TRUST_WITHDRAWN", "hold"), (OFF, "EF_HOST_POLICY_MALFORMED", "hold"),
     (ATTACHED, "EF_OK", "attaching")],
)  # fmt: skip
def test_why_a_feature_sees_nothing(driver: Path, state: str, code: str, gap: str) -> None:
    """While its programs are attached, or it is not wanted, it lacks nothing."""
    assert ask(driver, "gap", "1", "0", state, code) == gap
    assert ask(driver, "gap", "1", "1", state, code) == ask(driver, "gap", "0", "0", state, code) == "none"


def unobserved(driver: Path, *notes: str) -> dict[str, int]:
    return {gap: ns for gap, ns in json.loads(ask(driver, "unobserved", *notes)).items() if ns}


def test_time_is_of_what_held_since_the_note_before(driver: Path) -> None:
    assert unobserved(driver, "attaching:100:0") == {}
    assert unobserved(driver, "attaching:100:0", "none:130:0", "kill:150:0", "kill:170:0", "none:175:0") == {
        "attaching": 30, "kill": 25
    }  # fmt: skip
    # A clock that stands, or goes back, takes nothing away.
    assert unobserved(driver, "kill:100:0", "kill:100:0", "kill:90:0", "none:95:0") == {"kill": 5}


def test_what_was_cut_before_it_was_noted_lacks_since_then(driver: Path) -> None:
    assert unobserved(driver, "none:100:0", "kill:150:120") == {"kill": 30}
    # A cut of before the last note is an old one.
    assert unobserved(driver, "none:100:0", "kill:150:100", "kill:151:100") == {"kill": 1}


def since(driver: Path, figures: str) -> str:
    return ask(driver, "since", *figures.split())


def test_how_long_no_loader_ran(driver: Path) -> None:
    """SAME SEEN_BOOT SEEN_WALL BOOT WALL CLOCK: ns."""
    assert since(driver, "1 100 9 150 1 1") == "50", "in one boot its clock says it"
    assert since(driver, "1 150 9 100 99 1") == "0"
    assert since(driver, "0 900 1000 30 1100 1") == "100", "over a boot the wall clock"
    assert since(driver, "0 900 1000 30 1010 1") == "30", "no less than this boot is old"
    assert since(driver, "0 900 1000 30 999 1") == "30"
    assert since(driver, "0 900 1000 30 5000 0") == "30", "nor more where the clock is not known"


def test_the_document_holds_each_reason(driver: Path) -> None:
    assert list(json.loads(ask(driver, "unobserved"))) == list(GAPS)
    taken = ask(driver, "taken", json.dumps({"kill": 5, "down": -3, "budget": "x", "other": 7}))
    assert {gap: ns for gap, ns in json.loads(taken).items() if ns} == {"kill": 5}
