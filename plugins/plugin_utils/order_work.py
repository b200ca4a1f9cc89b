# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with the store of standing orders: an order begins, ends, is given to a host that lacks it.

Everything that touches the store is bounded in time, and what goes wrong there keeps no kill from going on.
"""

from __future__ import annotations

import json
import os

from ansible.errors import AnsibleError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope, standing_order
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.standing_order import Release, StandingOrder, StoreError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import variables
from ansible_collections.ebpf.fleet.plugins.plugin_utils import fan_out_run, order_hosts, order_store
from ansible_collections.ebpf.fleet.plugins.plugin_utils.bounded_call import within

STORE_SECONDS = 10
LEDGER = "ebpf_fleet_ledger"
ENGAGED, RELEASED = "engaged", "released"
# What of a kill's settings a later playbook uses too.
SETTINGS = {"ebpf_fleet_kill_timeout": 20, "ebpf_fleet_logins": 0, "ebpf_fleet_kex_algorithms": "^curve25519-sha256"}


def store_of(action, task_vars):
    """The store of the fleet of this play; FleetError where the variable that names it cannot be used."""
    given = task_vars.get(LEDGER, "")
    try:
        given = action._templar.template(given)
    except AnsibleError as error:
        raise StoreError(f"{LEDGER}: {printable(error, 300)}; give a path") from error
    return order_store.Store(order_store.folder_of(given or "", os.environ))


def _safely(call):
    return within(STORE_SECONDS, StoreError.code, call)


def standing(store):
    """Every order that stands."""
    found = _safely(lambda: [standing_order.render(one).decode() for one in store.orders()])
    return [standing_order.parse(one.encode()) for one in found]


def write_down(store, wanted, hosts, everywhere, reason):
    """Keep an order before any host is asked; returns its id. FleetError where it cannot be kept."""
    since = order_store.now()
    ident = standing_order.ident(since, wanted.terms)
    new = StandingOrder(ident, wanted, order_store.who(os.environ), since, reason, everywhere, outstanding=tuple(hosts))

    def keep():
        with store.locked():
            order = standing_order.engaged(store.of_scope(wanted), new)
            store.put(order)
            return order.id

    return _safely(keep)


def write_answers(store, ident, answers):
    """Keep who confirmed an order."""

    def keep():
        with store.locked():
            order = store.of_id(ident)
            if order is not None:
                store.put(standing_order.answered(order, answers))

    _safely(keep)


def begin_release(store, wanted, reason):
    """Keep that an order is to be taken back, by whom and why; returns (the order, the others that stand).

    Of an order that this controller does not know, one without hosts is kept meanwhile.
    """
    release = Release(order_store.who(os.environ), order_store.now(), reason)

    def keep():
        with store.locked():
            orders = store.orders()
            own = next((one for one in orders if one.scope == wanted), None) or StandingOrder(
                standing_order.ident(release.when, wanted.terms), wanted, "someone", release.when, "", False
            )
            store.put(own._replace(release=release))
            return [standing_order.render(one).decode() for one in [own, *orders]]

    own, *orders = [standing_order.parse(one.encode()) for one in _safely(keep)]
    return own, [one for one in orders if one.scope != wanted]


def end_release(store, ident, answers, inventory):
    """Keep who confirmed the end of an order; returns the names of those that still have to.

    With the last one the order stands no longer. One that neither this controller nor a host knew leaves nothing.
    """
    good = [name for name, answer in answers.items() if answer["ok"]]
    had = [name for name in good if answers[name]["concerned"]]

    def keep():
        with store.locked():
            order = store.of_id(ident)
            if order is None:
                return []
            rest = standing_order.taken_back(order, good, inventory)
            if rest.hosts:
                store.put(rest)
            elif order.hosts or had:
                store.take_out(order if order.hosts else order._replace(released=tuple(sorted(had))))
            else:
                store.forget(order)
            return list(rest.hosts)

    return _safely(keep)


def give(action, task_vars, store, hosts, by_cell=False):
    """Give hosts the orders that stand for them; {host: why it does not have one} of those that did not confirm.

    In check mode no host is asked, and those are told that have yet to confirm.
    """
    refused = {}
    for order in standing(store):
        refused.update({host: _late(order) for host in hosts if _is_late(order, host, task_vars["hostvars"])})
        covered = [host for host in hosts if host in set(order.hosts)]
        if action._task.check_mode:
            refused.update({host: f"{standing_order.named(order)} stands; it did not confirm yet"
                            for host in covered if host in order.outstanding})  # fmt: skip
        elif covered:
            refused.update(_given(action, task_vars, store, order, covered, by_cell))
    return refused


def _is_late(order, host, hostvars):
    cell = order_hosts.cell_of(hostvars, host)[0] if order.scope.cell and order.everywhere else None
    return standing_order.means(order, host, cell)


def _late(order):
    return (
        f"{standing_order.named(order)} stands, and this host was not there when it was given: give it with "
        f"ansible-playbook ebpf.fleet.rollback {scope.argument(order.scope)}, or take it back with "
        f"{scope.release_command(order.scope)}. Hosts of another fleet need an {LEDGER} of their own"
    )


def _given(action, task_vars, store, order, hosts, by_cell):
    """Give one order to hosts; {host: sentence} of those that did not confirm."""
    known = {name: _setting(action, task_vars, name, default) for name, default in SETTINGS.items()}
    seconds = known["ebpf_fleet_kill_timeout"]
    text = killscript.render([order.scope.terms], ENGAGED, deadline_seconds=killscript.deadline_within(seconds))
    arguments = {
        "command": killscript.command(text), "connect_timeout": fan_out_run.CONNECT_SECONDS, "timeout": seconds,
        "logins": known["ebpf_fleet_logins"], "kex_algorithms": known["ebpf_fleet_kex_algorithms"], "by_cell": by_cell,
    }  # fmt: skip
    found = fan_out_run.answers_of(action, arguments, task_vars, list(hosts))
    answers = {host: kill_answer.parse_answer(one, (killscript.MARK,), host) for host, one in found.items()}
    try:
        write_answers(store, order.id, answers)
    except FleetError as error:
        action._display.warning(f"{standing_order.named(order)}: who confirmed was not kept: {error.as_line()}")
    return {
        host: f"{standing_order.named(order)} stands and was not confirmed here: {answer['detail']}"
        for host, answer in answers.items() if not answer["ok"]
    }  # fmt: skip


def _setting(action, task_vars, name, default):
    """A variable's value, or its default where it cannot be used: an order is given all the same."""
    try:
        return variables.read(name, action._templar.template(task_vars.get(name, default)))
    except (FleetError, AnsibleError):
        return default


def refuse_without_orders(action, task_vars):
    """Give the host of this task the orders that stand for it; FleetError where it may not be touched further."""
    host = task_vars.get("inventory_hostname")
    refused = give(action, task_vars, store_of(action, task_vars), [host])
    if host in refused and not action._task.check_mode:
        raise FleetError("EF_ORDER_STANDS", f"{host}: {refused[host]}")


def answer_line(ok, detail, **more):
    """An answer as a host would have given it, of one that was not asked."""
    document = {"ok": ok, "changed": False, "detail": printable(detail, 300), **more}
    line = f"{killscript.MARK}{json.dumps(document)}\n"
    return {"rc": 0 if ok else 1, "stdout": line, "stderr": "", "msg": "", "unreachable": False, "failed": not ok,
            "seconds": None, "logged_in": None}  # fmt: skip
