# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the rollback playbook: the script back to the previous release, and the summary of answers."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import rollback, scope
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import verdict as kill_verdict
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def rollback_script(from_digest, wait=30, trust_only=False):
    """Return the script; an invalid digest is an error of the filter."""

    def render():
        return rollback.render_rollback(from_digest or None, wait_seconds=wait, trust_only=bool(trust_only))

    return killscript.command(attempt(AnsibleFilterError, render))


def kill_census(answers, scopes=(), state="engaged", allow_unconcerned=False):
    """Return the summary of ``{host: result}`` for an order; see the filter's documentation."""
    order = kill_verdict.Order(list(scopes), state, allow_unconcerned)
    return attempt(AnsibleFilterError, lambda: kill_answer.summary(answers, order=order))


def kill_refusal(given, state="engaged", confirm="", reason=""):
    """Return one sentence on an order that cannot be meant; empty for one that can."""
    return scope.refusal(given, state, confirm, reason)


def kill_goes_back(given):
    """Return whether the scope is the way back to the previous release, and no kill order."""
    return attempt(AnsibleFilterError, lambda: scope.read(given).previous)


def kill_changed(answer):
    """Return whether the host says that it changed; an order that was placed again counts as a change."""
    return kill_answer.parse_answer(answer)["changed"] is True


def rollback_answer(answer):
    """Return one host's answer as a dict with ``ok`` and ``detail``."""
    if not answer or (isinstance(answer, dict) and answer.get("skipped")):
        return {"ok": False, "detail": "was not changed by this run, so it was not asked to go back"}
    return kill_answer.parse_answer(answer)


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {
            "rollback_script": rollback_script,
            "rollback_answer": rollback_answer,
            "kill_census": kill_census,
            "kill_refusal": kill_refusal,
            "kill_goes_back": kill_goes_back,
            "kill_changed": kill_changed,
        }
