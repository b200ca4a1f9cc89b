# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible callback: one JSON line for each task, {task, host, seconds, ok}."""

from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: task_stamps
type: notification
short_description: How long each task took on its host
description: Writes one JSON line for each task into the file that EBPF_FLEET_BENCH_STAMPS names.
"""


class CallbackModule(CallbackBase):
    """The time from a task's dispatch to its result."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "task_stamps"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.started = {}

    def v2_runner_on_start(self, host, task):
        self.started[host.get_name(), task._uuid] = time.perf_counter()

    def v2_runner_on_ok(self, result):
        self._write(result, True)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._write(result, False)

    def _write(self, result, ok):
        host, task = result._host.get_name(), result._task
        seconds = time.perf_counter() - self.started[host, task._uuid]
        stamp = {"task": task.get_name(), "host": host, "seconds": seconds, "ok": ok}
        with open(os.environ["EBPF_FLEET_BENCH_STAMPS"], "a", encoding="ascii") as file:
            file.write(json.dumps(stamp) + "\n")
