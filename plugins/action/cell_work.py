# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have the cell controllers do one step of a rollout on their hosts, and keep what the hosts answered there."""

from __future__ import annotations

import os
import tempfile
import uuid

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import cell_controllers, cell_stream, cells, ledger
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.variables import VARIABLES
from ansible_collections.ebpf.fleet.plugins.plugin_utils import cell_answers, cell_jobs
from ansible_collections.ebpf.fleet.plugins.plugin_utils.ledger_steps import whole
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

ARGUMENTS = {
    "step": {"type": "str", "required": True, "choices": list(cells.STEPS)},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "only": {"type": "raw"},
    "arguments": {"type": "raw", "default": {}},
    "bundle": {"type": "str", "default": ""},
    "digest": {"type": "str", "default": ""},
    "plan": {"type": "raw", "default": {}},
    "batch": {"type": "int", "default": 0},
    "rollout": {"type": "str", "default": ""},
    "activation": {"type": "raw", "default": 60},
    "silence": {"type": "raw", "default": 30},
    "check": {"type": "bool"},
}
# Variables of Ansible itself, which are not the inventory's word on how a host is reached.
MAGIC = (
    "ansible_facts", "ansible_local", "ansible_play_", "ansible_version", "ansible_check_mode", "ansible_diff_mode",
    "ansible_forks", "ansible_inventory_sources", "ansible_limit", "ansible_run_tags", "ansible_skip_tags",
    "ansible_verbosity", "ansible_config_file", "ansible_playbook_python", "ansible_collection_name", "ansible_role_",
    "ansible_parent_role_", "ansible_dependent_role_names", "ansible_search_path", "ansible_loop", "ansible_delegated_",
)  # fmt: skip
# What only the coordinator does with.
OURS = (cell_controllers.CONTROLLERS, "ebpf_fleet_hooks", "ebpf_fleet_ledger", "ebpf_fleet_report_dir")


class ActionModule(ActionBase):
    """One task for all hosts; a cell that is lost never fails the task, its hosts are unreachable and it is named."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        result.update(changed=False, by_cell=[], lost={}, cells={}, folder="", hosts={})
        try:
            hostvars = task_vars["hostvars"]
            # Of most fleets there is nothing to do.
            if not any(hostvars[host].get(cell_controllers.CONTROLLERS) for host in arguments["hosts"]):
                return result
            result.update(self.work(arguments, hostvars))
        except FleetError as error:
            return {**result, **failed(error)}
        return result

    def work(self, arguments, hostvars):
        """Run the jobs of a step; what the task returns of them."""
        cell_jobs.refuse_without_runner()
        found = cells.by_cell([hostvars[host] for host in arguments["hosts"]])
        by_cell = [host for _controller, hosts in found.values() for host in hosts]
        only = set(by_cell if arguments["only"] is None else map(str, arguments["only"]))
        folder = tempfile.mkdtemp(prefix="ebpf-fleet-cells-", dir=constants.DEFAULT_LOCAL_TMP)
        jobs = self.jobs(folder, arguments, hostvars, found, only)
        cell_jobs.run(jobs)
        told = {}
        for job in jobs:
            told.update(kept(folder, job))
            if job.sentence:
                self._display.warning(job.sentence)
        return {
            "by_cell": by_cell, "folder": folder, "hosts": told,
            "lost": {job.binding.cell: job.sentence for job in jobs if job.sentence},
            "cells": {job.binding.cell: {"seconds": job.took, "hosts": len(job.binding.hosts)} for job in jobs},
        }  # fmt: skip

    def jobs(self, folder, arguments, hostvars, found, only):
        """The jobs, one of each cell that has a host in this step."""
        step, given = arguments["step"], values.plain(arguments["arguments"])
        silence = values.whole(10, 3600)("ebpf_fleet_cell_silence", arguments["silence"])
        activation = values.whole(0, 3600)("ebpf_fleet_activation_timeout", arguments["activation"])
        check = self._task.check_mode if arguments["check"] is None else arguments["check"]
        bundle = os.path.abspath(self._loader.path_dwim(arguments["bundle"])) if step == "change" else ""
        plan = ledger.digest_of_document(whole(arguments["plan"]))
        asked = {
            cell: (controller, [one for one in hosts if one in only]) for cell, (controller, hosts) in found.items()
        }
        variables = {host: variables_of(hostvars, host) for _controller, hosts in asked.values() for host in hosts}
        work = cell_jobs.Work(folder, variables, given, check, silence, bundle)
        return [
            cell_jobs.Job(
                work, controller,
                cells.Binding(uuid.uuid4().hex, arguments["rollout"], cell, arguments["batch"], step, plan,
                              arguments["digest"], tuple(hosts)),
                cells.seconds_of(step, given, len(hosts), activation),
            )
            for cell, (controller, hosts) in asked.items() if hosts
        ]  # fmt: skip


def variables_of(hostvars, host):
    """What a job knows of a host: how it is reached, and what the collection's variables say, both rendered here."""
    own = hostvars[host]
    names = [name for name in hostvars.raw_get(host) if is_of_the_job(name)]
    return {name: values.plain(own[name]) for name in names}


def is_of_the_job(name):
    """Is this a variable that goes with a job?"""
    if name.startswith("ansible_"):
        return not name.startswith(MAGIC)
    return name in VARIABLES and name not in OURS


def kept(folder, job):
    """Keep the answers of a job for the tasks that come; returns what a command did, by host."""
    binding = job.binding
    gone = {"unreachable": True, "changed": False, "msg": job.sentence}
    if binding.step == "command":
        lost = {"rc": None, "stdout": "", "stderr": "", "failed": True, "seconds": None, "logged_in": None, **gone}
        return {host: lost if job.answers is None else job.answers.command.get(host, lost) for host in binding.hosts}
    silent = {**gone, "msg": f"cell {binding.cell}: its controller has no answer of this host for this step"}
    for host in binding.hosts:
        for module in cells.STEPS[binding.step]:
            result = gone if job.answers is None else cell_stream.result_of(job.answers, host, module) or silent
            cell_answers.put(folder, host, module, result)
    return {}
