# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach points in one line each, as hosts have them and as a fleet counts them. Pure."""

from __future__ import annotations

import re
from typing import Any, Mapping

Json = Mapping[str, Any]

NOWHERE = "(no attachment found)"
# Parts of names that differ from host to host: ids of containers, pods and sessions, names of veth pairs.
_RANDOM = (
    (re.compile(r"[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}"), "*"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "*"),
    (re.compile(r"\b(veth|cali|lxc|cni|tap)[0-9a-f]{5,}\b"), r"\1*"),
    (re.compile(r"\b(session-[a-z]?|user-|user@|run-[a-z]?)[0-9]+\b"), r"\1*"),
)


def point_of(attachment: Json) -> str:
    """`xdp:eth0`, `tracepoint:sched_switch`; without a target the hook alone."""
    target = attachment.get("target")
    return attachment["hook"] if target is None else f"{attachment['hook']}:{target}"


def collapsed(text: str) -> str:
    """The text with a * where hosts differ for no reason that matters."""
    for form, instead in _RANDOM:
        text = form.sub(instead, text)
    return text
