# SPDX-License-Identifier: GPL-3.0-or-later
"""What one feature should be, decided by what is asked: a table of cases, without root, kernel or files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

import pytest

from tests.loader.drivers import LOADER, ask, build

pytestmark = pytest.mark.apart

# What ef_decide() calls, and what that calls; the linker leaves out the rest of these files.
NEEDED = ("base/*.c", "bundle/contract.c", "bundle/signal.c", "bundle/standing.c", "control/desired.c",
          "control/inputs.c", "control/lease.c", "control/orders.c", "feature/decide.c", "feature/degrade.c",
          "feature/state.c", "kernel/bpfnames.c", "kernel/requirement.c")  # fmt: skip

OFF, ATTACHED, KILLED, DISABLED, SHED = range(5)
ON = f"state={ATTACHED} opened=1 linked=1"
# Day 20,000 of Unix time is 2024-10-04.
EXPIRED, LASTS = "expires=20241004", "expires=20241005"

# (case, act, state, code): the state counts where it is to rest.
CASES = [
    # What is wanted and allowed.
    ("", "attach", "", "-"),
    (ON, "none", "", "-"),
    ("due=1", "none", "", "-"),
    (f"state={DISABLED} in_vain=1", "none", "", "-"),
    (f"state={DISABLED}", "attach", "", "-"),
    (f"state={KILLED}", "attach", "", "-"),
    (f"{ON} due=1 in_vain=1", "none", "", "-"),
    # Orders.
    (f"{ON} order=global", "rest", "killed", "EF_KILLED_GLOBAL"),
    (f"{ON} order=family.6.1", "rest", "killed", "EF_KILLED_FAMILY"),
    (f"{ON} order=feature.f", "rest", "killed", "EF_KILLED_FEATURE"),
    (f"{ON} order=feature.g", "none", "", "-"),
    ("order=feature.g order=feature.f", "rest", "killed", "EF_KILLED_FEATURE"),
    # Lease and trust.
    (f"{ON} lease=over", "rest", "off", "EF_LEASE_EXPIRED"),
    (f"{ON} trust=EF_SIG_REVOKED", "rest", "off", "EF_TRUST_WITHDRAWN"),
    (f"{ON} trust=EF_CLOCK_UNKNOWN", "rest", "off", "EF_CLOCK_UNKNOWN"),
    # Wishes.
    (f"{ON} wish=off", "rest", "off", "EF_NOT_WANTED"),
    (f"{ON} wish=off desired=absent", "rest", "off", "EF_NO_DESIRED"),
    (f"{ON} wish=off desired=bad", "rest", "off", "EF_DESIRED_MALFORMED"),
    # What is in force stays in force when what was read last is bad.
    (f"{ON} desired=bad", "none", "", "-"),
    # Policy.
    (f"{ON} policy=bad", "rest", "off", "EF_HOST_POLICY_MALFORMED"),
    # The contract's end, at its first day, and a clock that cannot be right.
    (f"{ON} {EXPIRED}", "rest", "disabled", "EF_EXPIRED"),
    (f"{ON} {LASTS}", "none", "", "-"),
    (f"{ON} {LASTS} floor_day=20000", "none", "", "-"),
    (f"{ON} {LASTS} floor_day=20001", "rest", "off", "EF_CLOCK_UNKNOWN"),
    (f"{ON} floor_day=20001", "none", "", "-"),
    (f"{ON} {EXPIRED} wall_day=19999", "none", "", "-"),
    # Budgets.
    (f"{ON} shed=1 budget=0", "rest", "shed", "EF_BUDGET_MAP_FILL"),
    (f"{ON} shed=1 budget=1", "rest", "shed", "EF_BUDGET_CPU"),
    (f"{ON} shed=1 budget=3", "rest", "shed", "EF_BUDGET_MAP_MEMORY"),
    (f"{ON} shed=1 budget=4", "rest", "shed", "EF_BUDGET_EVENT_RATE"),
    (f"{ON} shed=1 budget=5", "rest", "shed", "EF_BUDGET_DROPS"),
    (f"{ON} shed=1 of_host=1 budget=1", "rest", "shed", "EF_BUDGET_HOST_CPU"),
    (f"{ON} shed=1 of_host=1 budget=2", "rest", "shed", "EF_BUDGET_HOST_MEMORY"),
    (f"{ON} shed=1 of_host=1 budget=3", "rest", "shed", "EF_BUDGET_HOST_MAP_MEMORY"),
    (f"{ON} shed=1 of_host=1 budget=4", "rest", "shed", "EF_BUDGET_HOST_EVENT_RATE"),
    # Attached, and yet to be attached again.
    (f"{ON} reduced=1", "renew", "", "EF_OK"),
    (f"{ON} reduced=1 without_full=1", "none", "", "-"),
    (f"{ON} without_full=1", "renew", "", "EF_OK"),
    (f"state={ATTACHED} opened=1", "renew", "", "EF_OK"),
    (f"{ON} stale=1", "renew", "", "EF_OK"),
    ("reduced=1", "attach", "", "-"),
    # What takes away goes before what gives, each before the next.
    (f"{ON} order=global lease=over trust=EF_SIG_REVOKED wish=off policy=bad {EXPIRED} shed=1 budget=1",
     "rest", "killed", "EF_KILLED_GLOBAL"),
    (f"{ON} lease=over trust=EF_SIG_REVOKED wish=off policy=bad {EXPIRED} shed=1 budget=1",
     "rest", "off", "EF_LEASE_EXPIRED"),
    (f"{ON} trust=EF_SIG_REVOKED wish=off policy=bad {EXPIRED} shed=1 budget=1", "rest", "off", "EF_TRUST_WITHDRAWN"),
    (f"{ON} wish=off policy=bad {EXPIRED} shed=1 budget=1", "rest", "off", "EF_NOT_WANTED"),
    (f"{ON} policy=bad {EXPIRED} shed=1 budget=1", "rest", "off", "EF_HOST_POLICY_MALFORMED"),
    (f"{ON} {EXPIRED} shed=1 budget=1", "rest", "disabled", "EF_EXPIRED"),
    (f"{ON} {LASTS} floor_day=20001 shed=1 budget=1", "rest", "off", "EF_CLOCK_UNKNOWN"),
    (f"{ON} shed=1 budget=1 stale=1", "rest", "shed", "EF_BUDGET_CPU"),
]  # fmt: skip


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ef_decide() by itself: no BPF object, no descriptor and no thread are linked in."""
    return build(tmp_path_factory.mktemp("decide"), "decide", NEEDED)


def decide(driver: Path, case: str) -> list[str]:
    """[act, state, code, wanted, sentence…]"""
    return ask(driver, *case.split()).split()


@pytest.mark.parametrize(("case", "act", "state", "code"), CASES, ids=[case or "nothing" for case, *_ in CASES])
def test_a_case(driver: Path, case: str, act: str, state: str, code: str) -> None:
    found = decide(driver, case)
    assert [found[0], found[2]] == [act, code]
    assert act != "rest" or found[1] == state
    assert found[3] == str(int("wish=off" not in case))


def codes_in(name: str) -> Iterator[str]:
    yield from re.findall(r'"(EF_[A-Z_]+)"', (LOADER / name).read_text())


def test_the_table_has_every_reason_code_that_it_can_give() -> None:
    budgets = set(codes_in("base/budgets.c"))
    written = {*codes_in("feature/decide.c"), *budgets, "EF_LEASE_EXPIRED", "EF_TRUST_WITHDRAWN", "EF_CLOCK_UNKNOWN"}
    orders = {code for code in codes_in("control/orders.c") if code.startswith("EF_KILLED_")}
    assert len(budgets) == 9 and len(orders) == 3
    assert written | orders == {code for *_, code in CASES if code != "-"}


def test_the_reason_is_a_sentence_with_what_to_do(driver: Path) -> None:
    assert "remove it to release" in " ".join(decide(driver, "order=global"))
    assert "renew it and release again" in " ".join(decide(driver, EXPIRED))
    assert "set the clock" in " ".join(decide(driver, f"{LASTS} floor_day=20001"))
    assert "step 'shed'" in " ".join(decide(driver, "shed=1 budget=1"))
