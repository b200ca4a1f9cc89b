# SPDX-License-Identifier: GPL-3.0-or-later
"""What the BCC collector decides of a feature: one row for each way, and which of two reasons goes first."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import Reason
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.decide import Asked, Verdict, decide
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.desired import Desired
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.orders import Order

NO_BTF = Reason("EF_NO_BTF", "no BTF")
COULD_NOT = (NO_BTF, Reason("EF_OK", ""))
RUNS = (None, Reason("EF_NOT_WANTED", "the loader runs it"))
GLOBAL = Order("global", "/run/kill.d/global")
KILLED = Reason("EF_KILLED_GLOBAL", "kill order /run/kill.d/global; remove it to release")
NOT_WANTED = Reason("EF_NOT_WANTED", "desired.json does not want it")
NO_FALLBACK = Reason("EF_NOT_WANTED", "desired.json has no fallback 'bcc'")
ABSENT = Reason("EF_NO_DESIRED", "there is no desired.json")
BROKEN = Reason("EF_DESIRED_MALFORMED", "desired.json: is broken")
EXPIRED = Reason("EF_EXPIRED", "its contract expired on 2026-01-01; renew it and release again")
ON = Desired({"runqlat": {"enabled": True}}, True, None)
OFF = Desired({"runqlat": {"enabled": False}}, True, None)


def asked(**changes: object) -> Asked:
    return Asked("runqlat", None, ON, None, COULD_NOT)._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict("attached", NO_BTF, True)),
        ({"order": GLOBAL}, Verdict("killed", KILLED, True)),
        ({"order": GLOBAL, "desired": OFF}, Verdict("killed", KILLED, False)),
        ({"order": GLOBAL, "expired": "2026-01-01", "loader": RUNS}, Verdict("killed", KILLED, True)),
        ({"desired": OFF}, Verdict("off", NOT_WANTED, False)),
        ({"desired": OFF, "expired": "2026-01-01"}, Verdict("off", NOT_WANTED, False)),
        ({"desired": ON._replace(features={})}, Verdict("off", NOT_WANTED, False)),
        ({"desired": ON._replace(features={"other": {"enabled": True}})}, Verdict("off", NOT_WANTED, False)),
        ({"desired": ON._replace(bcc=False)}, Verdict("off", NO_FALLBACK, False)),
        ({"desired": Desired({}, False, ABSENT)}, Verdict("off", ABSENT, False)),
        # What was wanted before it broke goes on.
        ({"desired": ON._replace(error=BROKEN)}, Verdict("attached", NO_BTF, True)),
        ({"desired": OFF._replace(error=BROKEN)}, Verdict("off", NOT_WANTED, False)),
        ({"expired": "2026-01-01"}, Verdict("disabled", EXPIRED, True)),
        ({"expired": "2026-01-01", "loader": RUNS}, Verdict("disabled", EXPIRED, True)),
        ({"loader": RUNS}, Verdict("off", RUNS[1], True)),
    ],
)
def test_one_verdict_for_each_way(changes: dict[str, object], verdict: Verdict) -> None:
    assert decide(asked(**changes)) == verdict
