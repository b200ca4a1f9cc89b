# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests may run side by side, where a suite has several workers: a group's run one after the other.

A file is a group by itself, but for those below.
"""

from __future__ import annotations

from typing import Any

GROUPS = {
    # They flood this machine, or count what all of it does.
    "machine": ("loader", "backpressure fairness features features_bounds features_rounds handover perf "
                "runbooks runbooks_floods shipping weights witness"),
    # They ask for every program of ours that is loaded, or load one.
    "loaded": ("integration", "bcc_start event_rulebook fan_out kill_hostile kill_orders kill_pinned kill_script "
               "kill_switch login_shells playbooks standing_orders third_party_page"),
}  # fmt: skip
GROUP_OF = {
    f"tests/{folder}/test_{name}.py": group for group, (folder, names) in GROUPS.items() for name in names.split()
}


def group_of(node: str) -> str:
    """The group of a test by its id, such as `tests/unit/test_x.py::test_y[1]`."""
    path = node.partition("::")[0]
    return GROUP_OF.get(path, path)


def scheduler(config: Any, log: Any) -> Any:
    """Hands out whole groups, in the order in which they were collected."""
    # Only a run with workers has it.
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    # Else the groups with most tests come first, and not those that take longest.
    config.option.loadscopereorder = False
    return Scheduling(config, log)
