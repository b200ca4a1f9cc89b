# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the callback stages asks of Ansible's own objects: is this play a rollout's, what does a task wait for."""

from __future__ import annotations

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.clean import strip_internal_keys
from ansible_collections.ebpf.fleet.plugins.module_utils.report import stage_lines

# Steps of the ledger that only a rollout's plays have.
ROLLOUT_STEPS = ("lock", "batch")
# {action: the arguments that say how long it takes, as a Wait has them}.
WAITS = {
    "pause": {"seconds": "bake"},
    "observation_info": {"bake": "bake", "window": "window"},
    "ledger": {"seconds": "person"},
}


def action_of(task):
    """The last part of an action's name."""
    return str(task.action).rpartition(".")[2]


def is_action(task, name):
    return action_of(task) == name


def step_of(task):
    """The step of a ledger's task; empty for every other one."""
    return str(task.args.get("step", "")) if is_action(task, "ledger") else ""


def is_rollout(play):
    """Whether the play has a task that only a rollout's plays have."""
    return any(step_of(task) in ROLLOUT_STEPS for block in play.tasks for task in tasks_of(block))


def tasks_of(block):
    """Every task below a block, or the task itself."""
    if not hasattr(block, "block"):
        return [block]
    return [task for one in (*block.block, *block.rescue, *block.always) for task in tasks_of(one)]


def waits(task):
    """Whether the task takes its time on purpose."""
    return action_of(task) in WAITS and step_of(task) in ("", "hold")


def wait_of(play, host, task):
    """How long a task is to take, by its arguments as the host has them; None where that cannot be known."""
    names = WAITS[action_of(task)]
    try:
        variables = play.get_variable_manager().get_vars(play=play, host=host, task=task)
        templar = Templar(DataLoader(), variables=variables)
        given = {field: float(templar.template(task.args[name])) for name, field in names.items() if name in task.args}
    except Exception:  # Only how long is still to wait is lost by it; whatever is wrong fails in the task itself.
        return None
    return stage_lines.Wait(**given)


def is_plan(value):
    """Whether it is a plan, and not the fault that stands in its place."""
    return (
        isinstance(value, dict) and isinstance(value.get("batch_of"), dict) and isinstance(value.get("batches"), list)
    )


def shown(callback, result):
    """The result as the default callback would show it, as data."""
    told = dict(result.result)
    callback._clean_results(told, result.task.action)
    told = callback._dump_results(strip_internal_keys(told), serialize=False)
    return dict(told)


def message_of(callback, result):
    """What a task prints for a person."""
    told = shown(callback, result)
    value = told["msg"] if "msg" in told else {key: one for key, one in told.items() if key != "changed"}
    return stage_lines.message_lines(value)


def printable_diff(result):
    """The result with its differences made printable, line by line."""
    for one in [result.result, *(result.result.get("results") or [])]:
        if isinstance(one, dict) and one.get("diff"):
            one["diff"] = plain(one["diff"])
    return result


def plain(value):
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if not isinstance(value, str):
        return value
    return "\n".join(stage_lines.clean(value)) + ("\n" if value.endswith("\n") else "")
