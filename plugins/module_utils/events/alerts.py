# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Alertmanager sends, read as data: which alerts ask for something, and for what. Pure.

The document is version 4 of Alertmanager's webhook (https://prometheus.io/docs/alerting/latest/configuration/,
webhook_config). An alert asks by two labels:

    ebpf_fleet_action: kill, or reduce
    ebpf_fleet_scope:  what goes off, and where, as `rollback` takes it: feature=NAME,host=NAME

What comes out of here becomes variables of a playbook, and Ansible takes those for templates. So it has no letter that
begins one, whatever was sent.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import parse_json
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.orders import ScopeError

VERSION = "4"
MAX_ALERTS = 500
MAX_LABELS = 64
MAX_VALUE = 4096
MAX_SCOPE = 512
DEPTH = 8
ACTIONS = ("kill", "reduce")
ACTION_LABEL, SCOPE_LABEL = "ebpf_fleet_action", "ebpf_fleet_scope"

_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
# No brace, percent, hash, quote, backslash or blank: neither Ansible nor a shell takes such a text for more than it is.
_SCOPE = re.compile(r"[A-Za-z0-9_.,=*:@!&~+/\[\]-]+")
_NOT_SHOWN = re.compile(r"[^A-Za-z0-9_.,:/ -]")
# What makes a name of hosts a pattern that may mean any number of them.
_PATTERN = re.compile(r"[*?:,!&~\[\]]")
_EVERY_HOST = ("all", "ungrouped")


class Alert(NamedTuple):
    """One alert of the document: known to be well formed, and not yet what it asks for."""

    firing: bool
    labels: Mapping[str, str]
    fingerprint: str
    since: str

    @property
    def name(self) -> str:
        """The alert's name, in letters that mean nothing to a template."""
        return plain(self.labels.get("alertname", "without a name"), 100)


class Wish(NamedTuple):
    """What an alert asks for, of letters that are safe as a playbook's variables.

    `scope` is of a kill. `hosts` (patterns; empty: all) and `feature` (or empty) are of a reduction.
    """

    action: str
    scope: str
    hosts: tuple[str, ...]
    feature: str
    reason: str


def plain(text: str, limit: int) -> str:
    """A text in letters that begin no template; each other letter is a question mark."""
    return _NOT_SHOWN.sub("?", text[:limit])


def read(body: bytes) -> tuple[Alert, ...]:
    """The alerts of a document; FleetError EF_EVENT_MALFORMED names the field."""
    try:
        document = parse_json(body, DEPTH)
    except ValueError as error:
        raise _malformed("the body", str(error)) from error
    if not isinstance(document, dict):
        raise _malformed("the body", "is not an object")
    if document.get("version") != VERSION:
        raise _malformed("version", f'is not "{VERSION}", which is the one that is known')
    if document.get("status") not in ("firing", "resolved"):
        raise _malformed("status", "is neither firing nor resolved")
    for field in ("receiver", "groupKey"):
        _text(document, field, field)
    alerts = document.get("alerts")
    if not isinstance(alerts, list) or not 1 <= len(alerts) <= MAX_ALERTS:
        raise _malformed("alerts", f"is not a list of 1 to {MAX_ALERTS}")
    return tuple(_alert(one, f"alerts[{at}]") for at, one in enumerate(alerts))


def _alert(given: Any, where: str) -> Alert:
    if not isinstance(given, dict):
        raise _malformed(where, "is not an object")
    if given.get("status") not in ("firing", "resolved"):
        raise _malformed(f"{where}.status", "is neither firing nor resolved")
    fingerprint = _text(given, "fingerprint", f"{where}.fingerprint")
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise _malformed(f"{where}.fingerprint", "is not 16 hexadecimal digits")
    since = _text(given, "startsAt", f"{where}.startsAt")
    if not _TIME.fullmatch(since):
        raise _malformed(f"{where}.startsAt", "is not a time as 2026-01-31T12:00:00Z (RFC 3339)")
    return Alert(given["status"] == "firing", _labels(given.get("labels"), f"{where}.labels"), fingerprint, since)


def _labels(given: Any, where: str) -> dict[str, str]:
    if not isinstance(given, dict) or not 1 <= len(given) <= MAX_LABELS:
        raise _malformed(where, f"is not an object of 1 to {MAX_LABELS} labels")
    for name in given:
        if not _LABEL.fullmatch(name) or len(name) > 200:
            raise _malformed(where, f"has a label that is not named as Prometheus names one: {printable(name, 60)}")
        _text(given, name, f"{where}.{name}")
    return dict(given)


def _text(given: Mapping[str, Any], name: str, where: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or len(value) > MAX_VALUE:
        raise _malformed(where, f"is not a text of at most {MAX_VALUE} letters")
    return value


def _malformed(where: str, problem: str) -> FleetError:
    return FleetError("EF_EVENT_MALFORMED", f"{where} {problem}; nothing was done")


def asked(alert: Alert, allow_everything: bool) -> Wish | None:
    """What an alert asks for; None where it has no ebpf_fleet_action. FleetError EF_EVENT_SCOPE names the label."""
    action = alert.labels.get(ACTION_LABEL, "")
    if not action:
        return None
    if action not in ACTIONS:
        raise _refused(ACTION_LABEL, f"'{printable(action, 60)}' is not an action; {did_you_mean(action, ACTIONS)}")
    text = alert.labels.get(SCOPE_LABEL, "")
    if not text:
        raise _refused(SCOPE_LABEL, "is not there; an alert that does not say what goes off turns nothing off")
    if len(text) > MAX_SCOPE or not _SCOPE.fullmatch(text):
        raise _refused(SCOPE_LABEL, f"has more than {MAX_SCOPE} letters, or one that no event may have")
    try:
        wanted = scope.read(text)
    except ScopeError as error:
        raise _refused(SCOPE_LABEL, error.message) from error
    if wanted.previous:
        raise _refused(SCOPE_LABEL, "previous starts programs again, and no event does that; a person does")
    if _may_be_everything(wanted) and not allow_everything:
        remedy = "name feature=, cell= or host=NAME, or let the rulebook allow_everything"
        raise _refused(SCOPE_LABEL, f"{wanted.text} may be everything on every host; {remedy}")
    if action == "reduce" and (wanted.family or wanted.cell):
        raise _refused(SCOPE_LABEL, "reduce takes feature= and host=; the other terms are of a kill")
    reason = f"alert {alert.name} since {alert.since}, fingerprint {alert.fingerprint}"
    return Wish(action, ",".join(wanted.terms), wanted.hosts, wanted.feature, reason)


def _may_be_everything(wanted: scope.Wanted) -> bool:
    """Can it be that no program stays anywhere? A feature bounds it, a cell, or hosts by names alone.

    A name may be that of a group; who writes the rule knows which.
    """
    if wanted.feature or wanted.cell:
        return False
    return not wanted.hosts or any(one in _EVERY_HOST or _PATTERN.search(one) for one in wanted.hosts)


def _refused(where: str, problem: str) -> FleetError:
    return FleetError("EF_EVENT_SCOPE", f"{where} {problem}")


def variables(wish: Wish) -> dict[str, Any]:
    """What the rules of a rulebook see of a wish."""
    return {**wish._asdict(), "hosts": list(wish.hosts) or ["all"]}


def names(found: Sequence[Alert]) -> list[str]:
    """The alerts' names, each once."""
    return list(dict.fromkeys(one.name for one in found))
