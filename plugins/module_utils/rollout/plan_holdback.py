# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that stay on the release that they have until a date: a standing control, of every stratum its share. Pure.

Who is held back depends on the host's priority and name and on how many its stratum has, so the same hosts are held
from one rollout to the next. A stratum of one host is never held: no canary would be there for it.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import Any, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_hosts import Host, PlanError, read_value

PERCENT = "ebpf_fleet_holdback"
UNTIL = "ebpf_fleet_holdback_until"
READ_PERCENT = values.whole(0, 50)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


def read_date(name: str, value: Any) -> str:
    """A date, YYYY-MM-DD. YAML makes a date of its own of one that is not quoted, which means the same."""
    if type(value) is datetime.date:
        return value.isoformat()
    found = value if isinstance(value, str) and _DATE.fullmatch(value) else None
    try:
        return datetime.date.fromisoformat(found or "").isoformat()
    except ValueError as error:
        raise values.refuse(name, value, "give a date, as '2027-01-31'") from error


class Holdback(NamedTuple):
    """`percent` of the hosts stay as they are up to and with the day `until`; `today` is the controller's, in UTC."""

    percent: int
    until: str
    today: str

    @property
    def over(self) -> bool:
        """Is the day past? Then the hosts are in the plan as all others."""
        return self.today > self.until


def read_holdback(percent: Any, until: Any, today: Any) -> Holdback | None:
    """What is asked for, None where nothing is; PlanError where one of the two values is missing or refused."""
    share = 0 if percent is None else read_value(READ_PERCENT, PERCENT, percent)
    if not share:
        return None
    if until is None:
        raise PlanError(f"{PERCENT}: is {share} without {UNTIL}; say until which day the hosts are held back")
    if today is None:
        raise PlanError(f"{PERCENT}: today's date is not given; pass today=YYYY-MM-DD, in UTC")
    return Holdback(share, read_value(read_date, UNTIL, until), read_value(read_date, "today", today))


def held_back(groups: Sequence[Sequence[Host]], holdback: Holdback | None) -> list[Host]:
    """The hosts that are held, of `groups` of one stratum each, in the order of hosts.

    In all `percent` of the hosts, rounded down. Each stratum gives its share rounded down, and those with the largest
    remainders one more until the sum is reached (Hamilton's method); never all that it has.
    """
    if holdback is None or holdback.over:
        return []
    shares = [len(group) * holdback.percent for group in groups]
    held = [min(part // 100, len(group) - 1) for part, group in zip(shares, groups)]
    missing = sum(shares) // 100 - sum(held)
    for index in sorted(range(len(groups)), key=lambda index: (-(shares[index] % 100), groups[index][0].stratum)):
        if missing > 0 and shares[index] % 100 and held[index] < len(groups[index]) - 1:
            held[index] += 1
            missing -= 1
    return sorted(host for group, count in zip(groups, held) for host in sorted(group, key=_rank)[:count])


def _rank(host: Host) -> tuple[int, str, str]:
    """Who would go last is held first; beside that nothing counts of how hosts are named or placed."""
    return -host.priority, hashlib.sha256(host.name.encode(errors="surrogatepass")).hexdigest(), host.name
