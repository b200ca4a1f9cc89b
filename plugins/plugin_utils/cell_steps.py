# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One step of a rollout through cell controllers: the jobs of all cells that have a host in it, and their answers."""

from __future__ import annotations

import tempfile
import uuid
from typing import NamedTuple

from ansible import constants
from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import cell_controllers, cell_stream, cells
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.variables import VARIABLES
from ansible_collections.ebpf.fleet.plugins.plugin_utils import cell_answers, cell_jobs

SILENCE = "ebpf_fleet_cell_silence"
SILENCE_SECONDS = 30
# Variables of Ansible itself, which are not the inventory's word on how a host is reached.
MAGIC = (
    "ansible_facts", "ansible_local", "ansible_play_", "ansible_version", "ansible_check_mode", "ansible_diff_mode",
    "ansible_forks", "ansible_inventory_sources", "ansible_limit", "ansible_run_tags", "ansible_skip_tags",
    "ansible_verbosity", "ansible_config_file", "ansible_playbook_python", "ansible_collection_name", "ansible_role_",
    "ansible_parent_role_", "ansible_dependent_role_names", "ansible_search_path", "ansible_loop", "ansible_delegated_",
)  # fmt: skip
# What only the coordinator does with.
OURS = (cell_controllers.CONTROLLERS, "ebpf_fleet_hooks", "ebpf_fleet_ledger", "ebpf_fleet_report_dir")


class Step(NamedTuple):
    """What is asked of every cell. The digests, `batch` and `rollout` are bound into each job."""

    name: str
    arguments: dict
    check: bool = False
    bundle: str = ""
    bundle_digest: str = ""
    plan_digest: str = ""
    batch: int = 0
    rollout: str = ""
    activation: int = 0


class Done(NamedTuple):
    """`by_cell`: hosts whose cell has a controller; `command`: {host: result}; `lost`: {cell: sentence}; and times."""

    by_cell: list
    folder: str
    command: dict
    lost: dict
    cells: dict


def any_controller(hostvars, hosts):
    """Has a cell of these hosts a controller? Of most fleets none has."""
    return any(host in hostvars and hostvars[host].get(cell_controllers.CONTROLLERS) for host in hosts)


def do(step, hostvars, hosts, only, say):
    """Run the step's jobs, all at once; of `only`, where it is not None. `say` is told of each cell that is lost."""
    cell_jobs.refuse_without_runner()
    found = cells.by_cell([hostvars[host] for host in hosts if host in hostvars])
    by_cell = [host for _controller, names in found.values() for host in names]
    asked = set(by_cell if only is None else map(str, only))
    folder = tempfile.mkdtemp(prefix="ebpf-fleet-cells-", dir=constants.DEFAULT_LOCAL_TMP)
    jobs = jobs_of(step, folder, hostvars, found, asked)
    cell_jobs.run(jobs)
    command = {}
    for job in jobs:
        command.update(kept(folder, job))
        if job.sentence:
            say(job.sentence)
    lost = {job.binding.cell: job.sentence for job in jobs if job.sentence}
    times = {job.binding.cell: {"seconds": job.took, "hosts": len(job.binding.hosts)} for job in jobs}
    return Done(by_cell, folder, command, lost, times)


def jobs_of(step, folder, hostvars, found, asked):
    """The jobs, one of each cell that has a host in this step."""
    chosen = {cell: (controller, [one for one in names if one in asked]) for cell, (controller, names) in found.items()}
    hosts = [host for _controller, names in chosen.values() for host in names]
    variables = {host: variables_of(hostvars, host) for host in hosts}
    given = hostvars[hosts[0]].get(SILENCE, SILENCE_SECONDS) if hosts else SILENCE_SECONDS
    silence = VARIABLES[SILENCE](SILENCE, given)
    work = cell_jobs.Work(folder, variables, step.arguments, step.check, silence, step.bundle)
    return [
        cell_jobs.Job(
            work, controller,
            cells.Binding(uuid.uuid4().hex, step.rollout, cell, step.batch, step.name, step.plan_digest,
                          step.bundle_digest, tuple(names)),
            cells.seconds_of(step.name, step.arguments, len(names), step.activation),
        )
        for cell, (controller, names) in chosen.items() if names
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
        return {} if job.answers is None else dict(job.answers.command)
    silent = {**gone, "msg": f"cell {binding.cell}: its controller has no answer of this host for this step"}
    for host in binding.hosts:
        for module in cells.STEPS[binding.step]:
            result = gone if job.answers is None else cell_stream.result_of(job.answers, host, module) or silent
            cell_answers.put(folder, host, module, result)
    return {}
