# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Ansible would reach a host, for many hosts from one task.

The connection and become plugins of each host are made by Ansible's own loaders with that host's
own variables, just as for a task of its own; OpenSSH's arguments are then taken from the plugin.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleValueOmittedError
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, connection_loader
from ansible.template import Templar
from ansible.utils.display import Display
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import output
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import process as fanout_process
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts.fanout import Launch

OPENSSH = ("ssh", "ansible.builtin.ssh", "ansible.legacy.ssh")
CONNECT_VARIABLE = "ebpf_fleet_connect_timeout"
# A variable of a host may be a lookup, and that may hang: it holds up the others no longer than this.
PREPARE_SECONDS = 5.0

display = Display()


class Reach:
    """Makes the Launch of each host of a task."""

    def __init__(self, action, task_vars, command, connect_seconds, run_seconds, kex, head_bytes=output.HEAD_BYTES):
        self.hostvars = task_vars["hostvars"]
        self.loader = action._loader
        self.command = command
        self.connect_seconds, self.run_seconds, self.head_bytes = connect_seconds, run_seconds, head_bytes
        self.kex = kex if kex and not configures_kex() else ""
        # The task is delegated to the controller; the hosts are to be reached as if it were not.
        self.task = action._task.copy()
        self.task.delegate_to = None
        self.play = self.task.get_play()
        self.variables = self.task.get_variable_manager()
        # A task with a timeout of its own has the one alarm that there is.
        self.may_alarm = not self.task.timeout
        self.passwords = given_passwords(action._play_context, task_vars)

    def launch(self, host):
        """How this host is asked; raises what Ansible raises where its variables are of no use."""
        with Alarm(PREPARE_SECONDS if self.may_alarm else 0, "a variable of the host took too long"):
            return self._launch(host)

    def _launch(self, host):
        if host not in self.hostvars:
            raise FleetError("EF_HOSTS", "it is not in the inventory; add it there")
        variables = self._variables(host)
        templar = Templar(loader=self.loader, variables=variables)
        connection = self._connection(host, variables, templar)
        command = self._command(connection)
        seconds = self._connect_seconds(host, variables, templar)
        if connection._load_name in OPENSSH and not has_password(connection):
            return self._ssh(connection, command, seconds)
        work = Work(connection, command, self.loader.get_basedir(), self.head_bytes)
        return Launch(
            lambda _kex: fanout_process.fork(work), seconds, self.run_seconds, False, True, head_bytes=self.head_bytes
        )

    def _variables(self, host):
        """The host's variables as in a task of this play, less those that only the task itself sets."""
        found = self.hostvars.raw_get(host)
        own = self.play.get_vars()
        if not any(name.startswith("ansible_") for name in own):
            return found
        inventory_host = self.hostvars._inventory.get_host(host)
        return self.variables.get_vars(play=self.play, host=inventory_host, include_hostvars=False)

    def _connect_seconds(self, host, variables, templar):
        value = variables.get(CONNECT_VARIABLE)
        value = self.connect_seconds if value is None else templar.template(value)
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            seconds = 0.0
        if not 1 <= seconds <= 3600:
            raise FleetError("EF_ARGUMENT", f"{CONNECT_VARIABLE} is {value!r}: give seconds from 1 to 3600")
        return seconds

    def _connection(self, host, variables, templar):
        """The host's connection plugin with its become and shell plugins, all options set."""
        context = PlayContext(self.play, dict(self.passwords))
        context = context.set_task_and_variable_override(task=self.task, variables=variables, templar=templar)
        context.post_validate(templar=templar)
        context.remote_addr = context.remote_addr or host
        kind = variables.get("ansible_connection")
        context.connection = self.task.connection if kind is None else templar.template(kind)
        connection = connection_loader.get(
            context.connection, context, task_uuid=self.task._uuid, ansible_playbook_pid=str(os.getppid())
        )
        if connection is None:
            raise FleetError(
                "EF_ARGUMENT", f"there is no connection plugin {context.connection!r}; correct ansible_connection"
            )
        become = self._become(variables, templar)
        if become is not None:
            connection.set_become_plugin(become)
            context.set_become_plugin(become.name)
        self._set_options(connection, context, variables, templar)
        return connection

    def _become(self, variables, templar):
        wanted = variables.get("ansible_become")
        wanted = self.task.become if wanted is None else boolean(templar.template(wanted))
        if not wanted:
            return None
        method = variables.get("ansible_become_method")
        method = templar.template(method) if method else self.task.become_method
        plugin = become_loader.get(method)
        if plugin is None:
            raise FleetError("EF_ARGUMENT", f"there is no become plugin {method!r}; correct ansible_become_method")
        return plugin

    def _set_options(self, connection, context, variables, templar):
        keys = self.task.dump_attrs()
        keys["timeout"] = context.timeout
        keys.pop("retries", None)
        if context.password:
            keys["password"] = context.password
        connection.set_options(task_keys=keys, var_options=connection._resolve_option_variables(variables, templar))
        set_plugin_options("shell", connection._shell, keys, variables, templar)
        if connection.become is None:
            return
        if context.become_pass:
            keys["become_pass"] = context.become_pass
        set_plugin_options("become", connection.become, keys, variables, templar)

    def _command(self, connection):
        """The command as `raw` would give it to the plugin: within become where that is wanted."""
        become = connection.become
        if become is None:
            return self.command
        user, login = option(become, "become_user"), option(connection, "remote_user")
        if not constants.BECOME_ALLOW_SAME_USER and user == login and user:
            return self.command
        return become.build_become_command(self.command, connection._shell)

    def _ssh(self, connection, command, seconds):
        """Our own ssh for this host, by the plugin's arguments."""
        connection.host = option(connection, "host") or connection._play_context.remote_addr
        tty = ["-tt"] if option(connection, "use_tty") else []
        executable = option(connection, "ssh_executable")
        argv = connection._build_command(executable, "ssh", *tty, connection.host, command)
        at = argv.index(to_bytes(executable)) + 1
        end = len(argv) - len(tty) - 2
        patience = max(1, min(int(option(connection, "timeout") or seconds), int(seconds) - 1))
        first = [b"-o", b"ControlMaster=no", b"-o", b"ControlPath=none", b"-o", b"LogLevel=VERBOSE"]
        # ssh's own words on what hangs come just before our bound.
        first += [b"-o", b"ConnectTimeout=%d" % patience]
        kex = [b"-o", b"KexAlgorithms=" + to_bytes(self.kex)] if self.kex else []

        def full(ours):
            # ssh takes what it meets first: ours before the inventory's where that must not win, else after.
            return argv[:at] + first + argv[at:end] + (kex if ours else []) + argv[end:]

        display.vvv(f"SSH: EXEC {shlex.join(to_text(one) for one in full(True))}", host=connection.host)
        escalates = connection.become is not None and connection.become.success
        password = to_text(option(connection.become, "become_pass") or "") if escalates else ""
        return Launch(
            lambda ours: fanout_process.spawn(full(ours)),
            seconds,
            self.run_seconds,
            sees_login=not output.hides_the_login(argv[at:end]),
            escalation=(lambda: output.Escalation(connection.become, password)) if escalates else None,
            head_bytes=self.head_bytes,
        )


class Work:
    """What the forked process of a host does that is not reached by OpenSSH: the plugin's own way."""

    def __init__(self, connection, command, folder, head_bytes=output.HEAD_BYTES):
        self.connection, self.command, self.folder, self.head_bytes = connection, command, folder, head_bytes

    def __call__(self):
        # The queue to the main process has a lock, which must not be held by a process that is killed.
        display._final_q = None
        if self.connection.transport == "local":
            self.connection.cwd = to_bytes(self.folder)
        try:
            rc, stdout, stderr = self.connection.exec_command(self.command, sudoable=True)
        except AnsibleConnectionFailure as error:
            return told(None, b"", b"", output.printable(error), unreachable=True)
        except AnsibleError as error:
            return told(None, b"", b"", output.printable(error))
        words = "" if not rc else output.last_words(to_text(stdout), to_text(stderr))
        return told(rc or 0, stdout, stderr, f"ended with status {rc}: {words}" if rc else "", head=self.head_bytes)


def told(rc, stdout, stderr, why, unreachable=False, head=output.HEAD_BYTES):
    """The document that Work sends."""
    texts = {}
    for name, data in (("stdout", stdout), ("stderr", stderr)):
        capture = output.Capture(head)
        capture.add(to_bytes(data))
        texts[name] = capture.text()
    return {"rc": rc, **texts, "msg": why, "unreachable": unreachable}


class Alarm:
    """Raises AnsibleError within the block when it takes too long; 0 seconds: never."""

    def __init__(self, seconds, why):
        self.seconds, self.why = seconds, why

    def __enter__(self):
        if self.seconds:
            self.before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *_error):
        if self.seconds:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.before)

    def _ring(self, _number, _frame):
        raise AnsibleError(f"{self.why} (over {self.seconds:g} s)")


def option(plugin, name):
    """An option of a plugin; None where it has no such option."""
    try:
        return plugin.get_option(name)
    except (KeyError, AttributeError):
        return None


def set_plugin_options(kind, plugin, keys, variables, templar):
    """Set the options of a shell or become plugin from the host's variables."""
    options = {}
    for name in constants.config.get_plugin_vars(kind, plugin._load_name):
        if name not in variables:
            continue
        try:
            options[name] = templar.template(variables[name])
        except AnsibleValueOmittedError:
            continue
    plugin.set_options(task_keys=keys, var_options=options)


def has_password(connection):
    """Does the login need a password or a card? Then the plugin itself must give it to ssh."""
    given = option(connection, "password") or connection._play_context.password
    return bool(given or option(connection, "pkcs11_provider"))


def given_passwords(context, task_vars):
    """The passwords of the command line (-k, -K), as far as they are not the controller's own variables."""
    own = (task_vars.get("ansible_delegated_vars") or {}).get("localhost") or {}
    found = {}
    for key, attribute in (("conn_pass", "password"), ("become_pass", "become_pass")):
        names = constants.MAGIC_VARIABLE_MAPPING.get(attribute, ())
        if not any(name in own for name in names):
            found[key] = getattr(context, attribute)
    return found


def configures_kex():
    """Do the controller's own ssh_config files set the key exchange? Then they have the last word."""
    lists = []
    for files in ([], ["-F", "none"]):
        try:
            done = subprocess.run(
                ["ssh", "-G", *files, "placeholder.invalid"],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=5,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return True
        lists.append([line for line in done.stdout.splitlines() if line.startswith("kexalgorithms ")])
    return lists[0] != lists[1]
