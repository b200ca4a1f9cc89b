# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A request as a whole: what is answered, what is done, and the one line of the log. Pure.

The answer's status says to Alertmanager what became of the request: 200 all was taken or needs nothing, 400 not a
document that is known, 401 not a sender, 422 an alert asks for what no event may, 429 too often: it was not done, and
may be sent again.
"""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.events import alerts
from ansible_collections.ebpf.fleet.plugins.module_utils.events.rates import Limits, Rates
from ansible_collections.ebpf.fleet.plugins.module_utils.events.senders import Attempt, Door, Sender

MAX_BODY = 1024 * 1024
# Lines in a minute about requests that are of no known sender: whoever reaches the port could fill the disk with them.
STRANGERS_LOGGED, STRANGERS_SECONDS = 60, 60.0
TAKEN, DUPLICATE, RESOLVED, UNCONCERNED = "taken", "duplicate", "resolved", "unconcerned"
REFUSED, LIMITED, STRANGER, MALFORMED = "refused", "limited", "stranger", "malformed"
DECISIONS = (TAKEN, DUPLICATE, RESOLVED, UNCONCERNED, REFUSED, LIMITED, STRANGER, MALFORMED)


class Request(NamedTuple):
    """A request: who connected, headers in the order they came, and the body.

    `wall` is the time in seconds since 1970, `ticks` seconds of a clock that never goes back.
    """

    remote: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    wall: float
    ticks: float


class Outcome(NamedTuple):
    """The answer's status and sentence, seconds after which it may be sent again (0: does not matter), the events to
    emit, and the line of the log (None: this one is only counted)."""

    status: int
    sentence: str
    retry_after: int
    events: list[dict[str, Any]]
    line: dict[str, Any] | None


class Desk:
    """Decides on requests one after the other."""

    def __init__(self, senders: Sequence[Sender], limits: Limits, allow_everything: bool) -> None:
        self._door = Door(senders)
        self._rates = Rates(limits)
        self._allow_everything = allow_everything
        self.counts = dict.fromkeys(DECISIONS, 0)
        self._strangers: list[float] = []
        self._unlogged = 0

    def decide(self, request: Request) -> Outcome:
        """What becomes of a request. Never raises for what came from outside."""
        try:
            sender = self._door.admit(Attempt(request.headers, request.body, request.wall))
        except FleetError as error:
            # Nothing of why: who is not a sender learns nothing here.
            return self._outside(request, 401, STRANGER, error, "EF_EVENT_SENDER: not a sender")
        try:
            found = alerts.read(request.body)
        except FleetError as error:
            self.counts[MALFORMED] += 1
            return Outcome(400, error.as_line(), 0, [], self._line(request, sender, 400, MALFORMED, error))
        events: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        wait = 0.0
        for alert in found:
            row, event, seconds = self._judge(alert, request.ticks)
            self.counts[row["decision"]] += 1
            rows.append(row)
            wait = max(wait, seconds)
            events += [] if event is None else [event]
        decisions = {row["decision"] for row in rows}
        status = 429 if LIMITED in decisions else 422 if REFUSED in decisions else 200
        worst = next((one for one in (LIMITED, REFUSED, TAKEN) if one in decisions), rows[0]["decision"])
        line = {**self._line(request, sender, status, worst, None), "alerts": rows}
        line["reason_code"] = next((row["reason_code"] for row in rows if row["decision"] == worst), None)
        sentences = [f"{row['alert']}: {row['detail'] or row['decision']}" for row in rows if row["reason_code"]]
        return Outcome(status, printable("; ".join(sentences) or worst, 2000), int(wait), events, line)

    def _judge(self, alert: alerts.Alert, ticks: float) -> tuple[dict[str, Any], dict[str, Any] | None, float]:
        """(the alert's row of the log, the event or None, seconds to wait or 0)."""
        row = {
            "alert": alert.name, "fingerprint": alert.fingerprint, "starts_at": alert.since, "action": None,
            "scope": None, "decision": UNCONCERNED, "reason_code": None, "detail": "",
        }  # fmt: skip
        try:
            wish = alerts.asked(alert, self._allow_everything)
        except FleetError as error:
            refusal = {"decision": REFUSED, "reason_code": error.code, "detail": printable(error.message)}
            # What has ended asks for nothing any more, whatever its labels are.
            return ({**row, **refusal} if alert.firing else {**row, "decision": RESOLVED}), None, 0.0
        if wish is None:
            return row, None, 0.0
        row.update({"action": wish.action, "scope": wish.scope})
        if not alert.firing:
            return {**row, "decision": RESOLVED}, None, 0.0
        key = f"{alert.fingerprint} {alert.since}"
        if self._rates.known(key):
            return {**row, "decision": DUPLICATE}, None, 0.0
        seconds = self._rates.take(key, wish.action, wish.scope, ticks)
        if seconds:
            detail = f"too many actions were taken; this one was not, and may be sent again in {seconds:.0f} s"
            return {**row, "decision": LIMITED, "reason_code": "EF_EVENT_RATE", "detail": detail}, None, seconds
        event = {**alerts.variables(wish), "alert": alert.name, "fingerprint": alert.fingerprint, "since": alert.since}
        return {**row, "decision": TAKEN}, {"ebpf_fleet": event}, 0.0

    def unread(self, request: Request, status: int, problem: str) -> Outcome:
        """What becomes of a request whose body was not read whole, so that whose it is was not asked."""
        error = FleetError("EF_EVENT_MALFORMED", f"the body {problem}; nothing was done")
        return self._outside(request, status, MALFORMED, error, error.as_line())

    def _outside(self, request: Request, status: int, decision: str, error: FleetError, sentence: str) -> Outcome:
        """The outcome of a request that is of no known sender: not every one of them has a line."""
        self.counts[decision] += 1
        self._strangers = [at for at in self._strangers if at > request.ticks - STRANGERS_SECONDS]
        if len(self._strangers) >= STRANGERS_LOGGED:
            self._unlogged += 1
            return Outcome(status, sentence, 0, [], None)
        self._strangers.append(request.ticks)
        line = {**self._line(request, None, status, decision, error), "not_logged": self._unlogged}
        self._unlogged = 0
        return Outcome(status, sentence, 0, [], line)

    def _line(
        self, request: Request, sender: str | None, status: int, decision: str, error: FleetError | None
    ) -> dict[str, Any]:
        time = datetime.datetime.fromtimestamp(request.wall, datetime.timezone.utc)
        return {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "remote": printable(request.remote, 80),
            "sender": sender,
            "status": status,
            "decision": decision,
            "reason_code": error and error.code,
            "detail": printable(error.message) if error else "",
            "counts": dict(self.counts),
        }
