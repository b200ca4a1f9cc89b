# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From orders, wishes, contract and the loader's word to what becomes of one feature. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import Reason
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.desired import Desired
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.orders import Order


class Asked(NamedTuple):
    """All that the verdict on one feature depends on.

    `order` keeps it off; `expired` is the day on which its contract expired; `loader` is why the loader could not
    run it (None: it is not for BCC) and what to say where it is not.
    """

    feature: str
    order: Order | None
    desired: Desired
    expired: str | None
    loader: tuple[Reason | None, Reason]


class Verdict(NamedTuple):
    """The state to bring it to ("attached": run it), and why; whether it is wanted of BCC."""

    state: str
    reason: Reason
    wanted: bool


def unwanted(feature: str, desired: Desired) -> Reason | None:
    """None when the feature is wanted of BCC, else why not."""
    entry = desired.features.get(feature)
    if entry and entry["enabled"] and desired.bcc:
        return None
    if desired.error and not desired.features:
        return desired.error
    if not entry or not entry["enabled"]:
        return Reason("EF_NOT_WANTED", "desired.json does not want it")
    return Reason("EF_NOT_WANTED", "desired.json has no fallback 'bcc'")


def decide(asked: Asked) -> Verdict:
    """Orders go before wishes, wishes before the contract's end, and that before the loader's word."""
    no_wish = unwanted(asked.feature, asked.desired)
    wanted = no_wish is None
    if asked.order:
        text = f"kill order {asked.order.path}; remove it to release"
        return Verdict("killed", Reason(asked.order.code, text), wanted)
    if no_wish:
        return Verdict("off", no_wish, False)
    if asked.expired:
        text = f"its contract expired on {asked.expired}; renew it and release again"
        return Verdict("disabled", Reason("EF_EXPIRED", text), True)
    why, instead = asked.loader
    return Verdict("attached", why, True) if why else Verdict("off", instead, True)
