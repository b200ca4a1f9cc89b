# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose the hosts of a kill order, and keep it on the controller until it is taken back."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope, standing_order
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import standing
from ansible_collections.ebpf.fleet.plugins.plugin_utils import order_hosts, order_work
from ansible_collections.ebpf.fleet.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

ARGUMENTS = {
    "step": {"type": "str", "required": True, "choices": ["begin", "end", "give", "list"]},
    "scope": {"type": "raw", "default": "global"},
    "state": {"type": "str", "default": "engaged", "choices": ["engaged", "released"]},
    "reason": {"type": "raw", "default": ""},
    "hosts": {"type": "raw", "default": []},
    "id": {"type": "str", "default": ""},
    "answers": {"type": "dict", "default": {}},
    "by_cell": {"type": "bool", "default": False},
}
NOTHING = {"hosts": [], "answers": {}, "id": "", "lost": [], "told": [], "refused": {}, "list": [], "orders": []}


class ActionModule(ControllerAction):
    """Runs on the controller, once for all hosts. In check mode nothing is written and no host is asked."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        hosts = [str(host) for host in arguments["hosts"]]
        steps = {"begin": self.begin, "end": self.end, "give": self.give, "list": self.listed}
        try:
            wanted = scope.read(values.plain(arguments["scope"]))
            answer = steps[arguments["step"]](wanted, hosts, arguments, task_vars)
        except FleetError as error:
            return {**result, **failed(error)}
        return {**result, "changed": False, **NOTHING, **answer}

    # --- an order begins: before any host is asked ---

    def begin(self, wanted, hosts, arguments, task_vars):
        if wanted.previous:
            return self.begin_return(wanted, hosts, task_vars)
        reason = scope.cleaned(arguments["reason"])
        if arguments["state"] == order_work.RELEASED:
            return self.begin_release(wanted, hosts, reason, task_vars)
        own, told = self.known(wanted, task_vars)
        chosen = order_hosts.choose(wanted, hosts, task_vars, self._loader, own.hosts if own else ())
        answer = {"hosts": chosen.hosts, "lost": chosen.lost}
        if self._task.check_mode:
            return answer
        everywhere = not wanted.hosts and set(order_hosts.inventory_names(task_vars)) <= set(hosts)
        try:
            store = order_work.store_of(self, task_vars)
            return {**answer, "id": order_work.write_down(store, wanted, chosen.hosts, everywhere, reason)}
        except FleetError as error:
            told = unkept(error)
        self._display.warning(told[0])
        return {**answer, "told": told}

    def known(self, wanted, task_vars):
        """(the order of this scope that stands, or None; what is to be told of a store that cannot be read)."""
        try:
            orders = order_work.standing(order_work.store_of(self, task_vars))
        except FleetError as error:
            return None, unkept(error)
        return next((one for one in orders if one.scope == wanted), None), []

    def begin_release(self, wanted, hosts, reason, task_vars):
        store = order_work.store_of(self, task_vars)
        if self._task.check_mode:
            orders = order_work.standing(store)
            own = next((one for one in orders if one.scope == wanted), None)
            return {"hosts": order_hosts.choose(wanted, hosts, task_vars, self._loader, own.hosts if own else ()).hosts}
        # A scope that means no host is refused before the store says that it is being taken back.
        own, _told = self.known(wanted, task_vars)
        chosen = order_hosts.choose(wanted, hosts, task_vars, self._loader, own.hosts if own else ())
        own, others = order_work.begin_release(store, wanted, reason)
        kept = {host: standing_order.keeping(others, wanted, host) for host in chosen.hosts}
        answers = {host: order_work.answer_line(True, stays(order), concerned=False) for host, order in kept.items()
                   if order is not None}  # fmt: skip
        return {"hosts": [host for host in chosen.hosts if host not in answers], "answers": answers,
                "id": own.id, "lost": chosen.lost}  # fmt: skip

    def begin_return(self, wanted, hosts, task_vars):
        """The way back attaches programs again: who misses an order gets it first, and goes back only with it."""
        chosen = order_hosts.choose(wanted, hosts, task_vars, self._loader)
        refused = order_work.give(self, task_vars, order_work.store_of(self, task_vars), chosen.hosts)
        if self._task.check_mode:
            refused = {}
        answers = {host: order_work.answer_line(False, f"did not go back: {why}") for host, why in refused.items()}
        return {"hosts": [host for host in chosen.hosts if host not in answers], "answers": answers,
                "lost": chosen.lost}  # fmt: skip

    # --- an order ends: hosts have answered ---

    def end(self, wanted, _hosts, arguments, task_vars):
        """Keep who answered how. What goes wrong here is told: it undoes nothing."""
        if self._task.check_mode or wanted.previous:
            return {}
        released = arguments["state"] == order_work.RELEASED
        answers = values.plain(arguments["answers"])
        try:
            store = order_work.store_of(self, task_vars)
            if not released:
                if arguments["id"]:
                    order_work.write_answers(store, arguments["id"], answers)
                return {}
            inventory = order_hosts.inventory_names(task_vars)
            rest = order_work.end_release(store, arguments["id"], answers, inventory)
        except FleetError as error:
            told = unfinished(error) if released else unkept(error)
            self._display.warning(told[0])
            return {"told": told}
        return {"told": still_stands(wanted, rest)} if rest else {}

    # --- an order stands ---

    def give(self, _wanted, hosts, arguments, task_vars):
        store = order_work.store_of(self, task_vars)
        refused = order_work.give(self, task_vars, store, hosts, arguments["by_cell"])
        said = {"msg": f"EF_ORDER_STANDS: {'; '.join(standing.lacking(hosts, refused))}"} if refused else {}
        return {"refused": refused, **said}

    def listed(self, _wanted, _hosts, _arguments, task_vars):
        orders = order_work.standing(order_work.store_of(self, task_vars))
        documents = [{**one._asdict(), "scope": one.scope.terms, "release": one.release and one.release._asdict()}
                     for one in orders]  # fmt: skip
        return {"list": [standing_order.line(one) for one in orders], "orders": values.plain(documents)}


def stays(order):
    """The sentence on a host where another order needs the same."""
    return f"stays off: {standing_order.named(order)} still stands here"


def unkept(error):
    """What is told of an order that the controller could not keep."""
    return [
        f"NOT KEPT ON THE CONTROLLER: {error.as_line()}. The order went to the hosts all the same; one that did not "
        "confirm will not get it from later playbooks. Repair that, and run the same command again."
    ]


def unfinished(error):
    """What is told of an order that was taken back from hosts and still stands on the controller."""
    return [f"STILL KEPT ON THE CONTROLLER: {error.as_line()}. Later playbooks give the order to hosts again. Repair "
            "that, and run the same command again."]  # fmt: skip


def still_stands(wanted, rest):
    """What is told of an order that hosts still have to give back."""
    return [f"scope={wanted.text} still stands for {len(rest)} hosts that did not confirm its end, or were not asked."]
