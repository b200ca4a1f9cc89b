# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host shows what a drill must show. Pure: facts before and now, and nothing else.

A sign is yes, no, or None where it could not be measured. Unknown is never yes.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple, Optional

from ansible_collections.ebpf.fleet.plugins.module_utils.gameday.drills import Drill

Json = Mapping[str, Any]
Yes = Optional[bool]


class Moment(NamedTuple):
    """What a sign is asked about."""

    drill: Drill
    feature: str
    before: Json
    now: Json

    def field(self, name: str) -> Any:
        """A field of the watched feature now; None where it is not told."""
        return (self.now["features"].get(self.feature) or {}).get(name)

    def grew(self, name: str) -> Yes:
        """Is a counter of the feature higher than before? A loader that began again counts from 0."""
        now, before = self.field(name), (self.before["features"].get(self.feature) or {}).get(name)
        if now is None:
            return None
        same = self.now["main_pid"] == self.before["main_pid"]
        return bool(now > (before or 0)) if same else bool(now > 0)

    def coded(self, *codes: str) -> bool:
        """Has the audit one of these codes since the begin?"""
        return any(name.partition(" ")[2] in codes for name in self.now["codes"])


def _over(at: Moment) -> Yes:
    if at.field("why") in at.drill.codes or at.coded(*at.drill.codes):
        return True
    return None if at.field("state") is None else False


def _step(at: Moment) -> Yes:
    found = at.field("step")
    return None if at.field("state") is None else found in ("sampling", "reduced", "shed")


def _how_far(at: Moment) -> Yes:
    measured, limit = at.field("measured"), at.field("limit")
    return None if measured is None or limit is None else bool(measured > limit)


def _attached(at: Moment) -> Yes:
    state = at.field("state")
    return None if state is None else state == "attached"


def _restarted(at: Moment) -> Yes:
    now, before = at.now["n_restarts"], at.before["n_restarts"]
    if now is None or before is None:
        return None
    return bool(now > before) or at.now["active_state"] == "failed"


def _active(at: Moment, wanted: str) -> Yes:
    state = at.now["active_state"]
    return None if state is None else state == wanted


def _nothing_held(at: Moment) -> Yes:
    held = at.now["held"]
    return None if held is None else held == 0


def _tamper_refused(at: Moment) -> Yes:
    return bool(at.coded("EF_FILE_DIGEST") or at.now["reason_code"] == "EF_FILE_DIGEST")


def _exit_refused(at: Moment) -> Yes:
    if at.now["exit_status"] is None or at.now["active_state"] is None:
        return None
    return bool(at.now["active_state"] == "failed" and at.now["exit_status"] == 3)


def _btf_gone(at: Moment) -> Yes:
    return None if at.now["btf"] is None else at.now["btf"] in ("missing", "bundled")


def _without_vmlinux(at: Moment) -> Yes:
    """Whatever ran in full without the kernel's own BTF now is reduced, or off with the reason."""
    if not at.now["features"] or at.now["btf"] is None:
        return None
    ran = [name for name, one in at.before["features"].items() if one["state"] == "attached"]
    now = [at.now["features"].get(name) for name in ran]
    if not now or any(one is None for one in now):
        return None
    return all(
        (one["state"] == "disabled" and one["reason_code"] == "EF_NO_BTF")
        or (one["state"] == "attached" and one["profile"] != "full")
        for one in now
        if one is not None
    )


def _quiet(at: Moment) -> Yes:
    active = at.field("fair")
    return None if active is None else not active


def _source_named(at: Moment) -> Yes:
    sources = at.field("sources")
    return None if sources is None else sources > 0


def _emptied(at: Moment) -> Yes:
    if at.field("state") is None:
        return None
    return bool(at.now["main_pid"] != at.before["main_pid"] and at.field("state") == "attached")


def _ended_by_host(at: Moment) -> Yes:
    return bool(at.now["ended_by"] == "timeout")


def _as_before(at: Moment) -> Yes:
    """Does everything run again as it did: the unit, each feature's state and variant, and no step down?"""
    if at.now["active_state"] is None:
        return None
    if at.now["active_state"] != "active" or at.now["state"] is None or at.now["btf"] != at.before["btf"]:
        return False
    if at.drill.restarts and at.now["main_pid"] == at.before["main_pid"]:
        # The loader is to be started again, and has not been yet.
        return False
    return all(_same(one, at.now["features"].get(name)) for name, one in at.before["features"].items())


def _same(before: Json, now: Json | None) -> bool:
    if now is None:
        return False
    return (now["state"], now["variant"]) == (before["state"], before["variant"]) and now["step"] == before["step"]


SIGNS: dict[str, Callable[[Moment], Yes]] = {
    "thinned": lambda at: at.grew("thinned"),
    "dropped": lambda at: at.grew("dropped"),
    "unwritten": lambda at: at.grew("unwritten"),
    "filled": lambda at: at.grew("dropped"),
    "over": _over,
    "step": _step,
    "how_far": _how_far,
    "attached": _attached,
    "restarted": _restarted,
    "given_up": lambda at: _active(at, "failed"),
    "nothing_held": _nothing_held,
    "tamper_refused": _tamper_refused,
    "exit_refused": _exit_refused,
    "btf_gone": _btf_gone,
    "without_vmlinux": _without_vmlinux,
    "quiet": _quiet,
    "source_named": _source_named,
    "emptied": _emptied,
    "ended_by_host": _ended_by_host,
    "as_before": _as_before,
}
SAYS: dict[str, str] = {
    "thinned": "events of the loudest were thinned",
    "dropped": "events were dropped and counted",
    "unwritten": "records that the sink did not take were counted",
    "filled": "new keys found no room and were counted",
    "over": "a limit was exceeded, with its reason code",
    "step": "the feature stands a step down",
    "how_far": "what was measured is above the limit that stands beside it",
    "attached": "the feature is attached",
    "restarted": "systemd counted restarts of the loader",
    "given_up": "systemd gave the unit up",
    "nothing_held": "no process of the unit holds a program",
    "tamper_refused": "the bundle was refused with EF_FILE_DIGEST",
    "exit_refused": "the unit failed with exit status 3",
    "btf_gone": "the status says that the kernel's BTF is not used",
    "without_vmlinux": "features run reduced, or are off with EF_NO_BTF",
    "quiet": "no one is thinned any more",
    "source_named": "the status names a source",
    "emptied": "a new loader has the feature attached",
    "ended_by_host": "systemd ended the fault at its bound",
    "as_before": "everything runs as before",
}


def watched(drill: Drill, feature: str, now: Json) -> str:
    """The feature that signs are about: of a host's limit that is exceeded the loader chooses who steps down."""
    down = [name for name in drill.features if (now["features"].get(name) or {}).get("why") in drill.codes]
    return feature if not down or feature in down else down[0]


def wanted(drill: Drill) -> list[str]:
    """The signs that are watched for while the fault is there, each once."""
    during = [step.sign for step in drill.runbook if step.when == "during"]
    return list(dict.fromkeys([*drill.detected, *drill.degraded, *during]))


def ask(sign: str, at: Moment) -> Yes:
    """Is the sign there?"""
    return SIGNS[sign](at)


def enough(drill: Drill, seen: Json) -> bool:
    """Was all seen that must be: one sign of detection, each of degradation, each step of a page during the fault?"""
    during = [step.sign for step in drill.runbook if step.when == "during"]
    return any(one in seen for one in drill.detected) and all(one in seen for one in [*drill.degraded, *during])
