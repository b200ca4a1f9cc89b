# SPDX-License-Identifier: GPL-3.0-or-later
"""The rulebook by a real ansible-rulebook over real SSH: orders that alerts gave, and what was only meant as one."""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from tests.loader.prometheus import free_address
from tests.support import rulebook, sshhosts
from tests.support.rulebook import Rulebook, wait_until

pytestmark = pytest.mark.skipif(bool(sshhosts.why_not()), reason=sshhosts.why_not() or "can be made")

TOKEN = "t" * 40


def alert(scope: str, name: str, fingerprint: str) -> dict[str, Any]:
    labels = {"alertname": name, "ebpf_fleet_action": "kill", "ebpf_fleet_scope": scope, "note": name}
    return {"status": "firing", "labels": labels, "annotations": {"summary": name}, "fingerprint": fingerprint,
            "startsAt": "2026-11-28T12:00:00Z"}  # fmt: skip


def post(book: Rulebook, token: str, *alerts: dict[str, Any]) -> int:
    body = {"version": "4", "status": "firing", "receiver": "r", "groupKey": "g", "alerts": list(alerts)}
    connection = http.client.HTTPConnection("127.0.0.1", book.port, timeout=30)
    connection.request("POST", "/alerts", json.dumps(body).encode(), {"Authorization": f"Bearer {token}"})
    with contextlib.closing(connection):
        return connection.getresponse().status


def kept(ledger: Path) -> list[dict[str, Any]]:
    """The orders that the controller keeps."""
    return [json.loads(path.read_text()) for path in sorted((ledger / "orders").glob("*.json"))]


def test_alerts_become_orders_at_once_and_what_they_say_is_never_run(tmp_path: Path) -> None:
    if rulebook.java() is None:
        pytest.skip("openjdk-17-jre-headless is not installed")
    ledger, trap = tmp_path / "ledger", tmp_path / "trap"
    evil = "{{ lookup('pipe', 'touch TRAP') }}{% set x = lookup('pipe', 'touch TRAP') %}".replace("TRAP", str(trap))
    port = int(free_address().rpartition(":")[2])
    with sshhosts.hosts(tmp_path, "good", "good", first=230) as fleet:
        one, other = sorted(fleet.names)
        inventory = fleet.inventory(ebpf_fleet_ledger=str(ledger))
        with rulebook.rulebook(tmp_path, port, inventory, f"ops token {TOKEN}\n") as book:
            # None of these runs anything.
            assert post(book, "w" * 40, alert(f"host={one}", "Wrong", "0" * 16)) == 401
            refused = ["global", "host=all", "previous", "", f"host={one},feature={evil}", "kernel_family=6.1"]
            assert {post(book, TOKEN, alert(scope, "Wide", "1" * 16)) for scope in refused} == {422}

            # Two of one request, and one whose every text is a template.
            first = alert(f"feature=exec_events,host={one}", evil, "a" * 16)
            assert post(book, TOKEN, first, alert(f"feature=runqlat,host={other}", "Costly", "b" * 16)) == 200
            for host, feature in ((one, "exec_events"), (other, "runqlat")):
                listing = "ls /run/ebpf-fleet/kill.d 2>/dev/null || true"
                wait_until(lambda: fleet.inside(host, "sh", "-c", listing).split(), f"an order on {host}")  # noqa: B023
                assert fleet.inside(host, "sh", "-c", listing).split() == [f"feature.{feature}"]
            orders = {tuple(order["scope"]): order for order in kept(ledger)}
            assert set(orders) == {("feature=exec_events", f"host={one}"), ("feature=runqlat", f"host={other}")}
            plain = orders[("feature=runqlat", f"host={other}")]["reason"]
            assert plain == f"alert Costly since 2026-11-28T12:00:00Z, fingerprint {'b' * 16}"
            strange = orders[("feature=exec_events", f"host={one}")]["reason"]
            assert strange.startswith("alert ?? lookup??pipe?, ?touch /") and strange.endswith(
                f"fingerprint {'a' * 16}"
            )
            assert not trap.exists()
            # ansible-rulebook gives the whole event to the playbook: nothing of the rest of the alert is in it.
            assert "lookup('pipe'" not in book.output() and len(book.alerts("taken")) == 2
