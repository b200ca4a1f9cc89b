# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the playbook gameday: what is refused, each drill's score, and the report."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import plain
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import drills, plan, report, score
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt

# What gameday_drill.yml registers, by the step.
REGISTERED = {
    "begin": "ebpf_fleet_gameday_begin",
    "watch": "ebpf_fleet_gameday_watch",
    "end": "ebpf_fleet_gameday_end",
}


def gameday_refusal(names, state="begun", confirm="", reason="", check=False):
    """Return one sentence on what cannot be meant or was not confirmed; see the filter's documentation."""
    return plan.refusal(plain(names), str(state), confirm, reason, bool(check))


def gameday_scores(hostvars, drill, limit_ms, killed=None):
    """Return the score of each host; see the filter's documentation."""
    census = plain(killed or {})
    return attempt(
        AnsibleFilterError,
        lambda: [_score(host, drills.drill(str(drill)), int(limit_ms), census) for host in hostvars],
    )


def _score(host, drill, limit_ms, census):
    name = host["inventory_hostname"]
    why, given = {}, {}
    for step, registered in REGISTERED.items():
        given[step], problem = _usable(host.get(registered))
        if problem:
            why[step] = problem
    met = score.Met(given["begin"], given["watch"], census.get(name), given["end"], why)
    return score.score(drill, name, met, limit_ms)


def _usable(registered):
    """(the answer or None, why there is none); a step that was skipped says nothing."""
    if not isinstance(registered, dict) or registered.get("skipped"):
        return None, ""
    if registered.get("failed") or registered.get("unreachable") or "facts" not in registered:
        return None, printable(registered.get("msg") or "no answer", 400)
    return plain(registered), ""


def gameday_meets(hostvars, chosen):
    """Return a line for each drill on each host, with why it may not meet it; see the filter's documentation."""
    answers = {host["inventory_hostname"]: _usable(host.get("ebpf_fleet_gameday_told")) for host in hostvars}
    return plan.meets_lines(plain(chosen), answers)


def gameday_kills(hostvars, drill):
    """Return which feature is turned off on which hosts; see the filter's documentation."""
    given = {host["inventory_hostname"]: _usable(host.get("ebpf_fleet_gameday_watch"))[0] for host in hostvars}
    return attempt(AnsibleFilterError, lambda: plan.kills(drills.drill(str(drill)), given))


def gameday_report(scores, chosen, begun, ended, reason=""):
    """Return the report; see the filter's documentation."""
    return report.report(plain(scores), plain(chosen), str(begun), str(ended), str(reason))


def gameday_lines(found):
    """Return the report in lines; see the filter's documentation."""
    return report.lines(plain(found))


def gameday_failed(found):
    """Return a line for all that did not pass; see the filter's documentation."""
    document = plain(found)
    return score.failed(document["scores"]) + [f"{one}: not done" for one in document["not_done"]]


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {
            "gameday_refusal": gameday_refusal,
            "gameday_scores": gameday_scores,
            "gameday_meets": gameday_meets,
            "gameday_kills": gameday_kills,
            "gameday_report": gameday_report,
            "gameday_lines": gameday_lines,
            "gameday_failed": gameday_failed,
        }
