# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout as people need it on a screen or in a log; every other play as the default callback shows it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: stages
type: stdout
short_description: Show a rollout stage by stage
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Shows a rollout as stages and batches with the hosts that are done, the checks with what was measured against their
    limits, and how long a bake or a measurement still takes. What passes on the way to the plan is one line.
  - A task that fails, and a host that cannot be reached, is shown in full with its host, task, message and remedy.
    Tasks that change something are shown with their hosts.
  - On a terminal the last line tells what is waited for, second by second. Elsewhere nothing moves and nothing has a
    colour; a line comes at least every ten seconds while something runs.
  - What a host says is made printable before it is shown.
  - Plays that are not a rollout's are shown as P(ansible.builtin.default#callback) shows them, with the same line of
    what is waited for. With C(-v) a rollout is too, with the stages between.
extends_documentation_fragment:
  - ansible.builtin.default_callback
  - ansible.builtin.result_format_callback
requirements:
  - set as C(stdout_callback) in configuration, or with the environment variable C(ANSIBLE_STDOUT_CALLBACK)
"""

EXAMPLES = r"""
ansible.cfg: |
  [defaults]
  stdout_callback = ebpf.fleet.stages
"""

import shutil
import time

from ansible import constants
from ansible.plugins.callback.default import CallbackModule as Default
from ansible_collections.ebpf.fleet.plugins.module_utils.report import stage_lines, stage_view
from ansible_collections.ebpf.fleet.plugins.plugin_utils import stage_tasks
from ansible_collections.ebpf.fleet.plugins.plugin_utils.screen import Screen

COLORS = {
    stage_lines.HEAD: constants.COLOR_HIGHLIGHT,
    stage_lines.GOOD: constants.COLOR_OK,
    stage_lines.BAD: constants.COLOR_ERROR,
    stage_lines.NOTE: constants.COLOR_CHANGED,
    stage_lines.CHANGED: constants.COLOR_CHANGED,
}


class CallbackModule(Default):
    """Passes events of a rollout's plays to the view, those of other plays to the default callback."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "ebpf.fleet.stages"

    def __init__(self):
        super().__init__()
        width = min(140, shutil.get_terminal_size((stage_view.WIDTH, 24)).columns)
        self.view = stage_view.View(width)
        self.staged = self.any_staged = False
        self.screen = Screen(self._display, self.view.status)

    def tell(self, lines):
        for line in lines:
            self._display.display(line.text, color=COLORS.get(line.tone))

    def both(self):
        """Whether the default's lines are wanted too."""
        return not self.staged or self._display.verbosity > 0

    # --- plays and tasks ---

    def v2_playbook_on_play_start(self, play):
        self.staged = stage_tasks.is_rollout(play)
        self.any_staged = self.any_staged or self.staged
        self._play = play
        with self.screen.lock:
            lines = self.view.play_begins(play.get_name().strip(), time.monotonic())
        if self.staged:
            self.tell(lines)
        if self.both():
            super().v2_playbook_on_play_start(play)

    def _task_start(self, task, prefix=None):
        self.begin_task(task)
        if self.both():
            super()._task_start(task, prefix)
        else:
            self._task_type_cache[task._uuid] = prefix
            self._last_task_name = task.get_name().strip()

    def begin_task(self, task):
        seen = stage_view.Task(task.get_name().strip(), time.monotonic(), stage_tasks.step_of(task))
        with self.screen.lock:
            lines = self.view.task_begins(seen)
        if self.staged:
            self.tell(lines)

    def v2_runner_on_start(self, host, task):
        super().v2_runner_on_start(host, task)
        if not self.staged:
            return
        with self.screen.lock:
            lines = self.view.host_begins(host.get_name(), time.monotonic())
            seen = self.view.task
        self.tell(lines)
        if seen is not None and seen.wait is None and stage_tasks.waits(task):
            wait = stage_tasks.wait_of(self._play, host, task)
            with self.screen.lock:
                self.view.task = seen._replace(wait=wait or stage_lines.Wait())

    # --- results ---

    def end_host(self, result, state, ignored=False):
        told = stage_tasks.shown(self, result)
        with self.screen.lock:
            self.view.host_ends(result.host.get_name(), state, told, ignored)
            if stage_tasks.is_action(result.task, "ledger") and result.result.get("report"):
                self.view.report = str(result.result["report"])
            lines = self.known(result) if self.staged and state in (stage_view.OK, stage_view.CHANGED) else []
        self.tell(lines)

    def known(self, result):
        """Lines of what a rollout's own tasks answer."""
        facts = result.result.get("ansible_facts")
        if stage_tasks.is_action(result.task, "set_fact") and isinstance(facts, dict):
            if stage_tasks.is_plan(facts.get("ebpf_fleet_plan")):
                self.view.planned(facts["ebpf_fleet_plan"])
            return []
        if stage_tasks.is_action(result.task, "gate"):
            return self.view.judged(result.result)
        if stage_tasks.is_action(result.task, "release") and result.result.get("changed"):
            self.view.released(time.monotonic())
        if stage_tasks.step_of(result.task) == "promoted":
            return self.view.promoted(time.monotonic())
        if self._run_is_verbose(result) and not self._display.verbosity:
            self.view.message(result.host.get_name(), stage_tasks.message_of(self, result))
        return []

    def v2_runner_on_ok(self, result):
        if self.both():
            super().v2_runner_on_ok(result)
        else:
            self._handle_warnings(result.result)
        # A lease is renewed again and again, which changes nothing else on the host.
        changed = result.result.get("changed") and not stage_tasks.is_action(result.task, "lease")
        self.end_host(result, stage_view.CHANGED if changed else stage_view.OK)

    def v2_runner_on_skipped(self, result):
        if self.both():
            super().v2_runner_on_skipped(result)
        else:
            self._handle_warnings(result.result)
        self.end_host(result, stage_view.SKIPPED)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.lost(result, stage_view.FAILED, ignore_errors)
        if self.both():
            super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_on_unreachable(self, result):
        self.lost(result, stage_view.UNREACHABLE, bool(result.task.ignore_unreachable))
        if self.both():
            super().v2_runner_on_unreachable(result)

    def lost(self, result, state, ignored):
        """Something went wrong: what is not of ours is told with all that Ansible knows of it."""
        if not self.both():
            self._handle_warnings(result.result)
            if not str(result.result.get("msg", "")).startswith("EF_"):
                self._handle_exception(result.result)
        self.end_host(result, state, ignored)

    def v2_runner_item_on_ok(self, result):
        if self.both():
            super().v2_runner_item_on_ok(result)
            return
        self._handle_warnings(result.result)
        if self._run_is_verbose(result):
            with self.screen.lock:
                self.view.message(result.host.get_name(), stage_tasks.message_of(self, result))

    def v2_runner_item_on_skipped(self, result):
        if self.both():
            super().v2_runner_item_on_skipped(result)

    def v2_playbook_on_include(self, included_file):
        if self.both():
            super().v2_playbook_on_include(included_file)

    def v2_on_file_diff(self, result):
        result = stage_tasks.printable_diff(result)
        with self.screen.trusted():
            super().v2_on_file_diff(result)

    # --- the end ---

    def v2_playbook_on_stats(self, stats):
        with self.screen.lock:
            lines = self.view.ends(time.monotonic())
        if self.any_staged:
            self.tell(lines)
        if not self.any_staged or self.both():
            with self.screen.trusted():
                super().v2_playbook_on_stats(stats)
        self.screen.close()
