# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of the release module: reads the bundle, asks the host, sends only what it lacks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ansible.plugins.action import ActionBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.files import check_planned, load_bundle, write_tar
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import resolve_features
from ansible_collections.ebpf.fleet.plugins.plugin_utils import order_work
from ansible_collections.ebpf.fleet.plugins.plugin_utils.cell_answers import taken
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

MODULE = "ebpf.fleet.release"
PUBLIC = (
    "state", "bundle", "features", "fallbacks", "keep", "allow_downgrade", "from_digest", "service", "wait", "root",
    "lease", "digest",
)  # fmt: skip


class ActionModule(ActionBase):
    """One execution of the module on the host, two when the host lacks the bundle."""

    _supports_check_mode = True
    _supports_async = False
    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        answer = taken(task_vars, "release")
        if answer is not None:
            return answer
        try:
            # Before the host is as much as connected to: a refusal concerns the controller alone.
            bundle = self.judge()
        except (OSError, FleetError) as error:
            return failed(explain(error))
        result = super().run(tmp, task_vars)
        try:
            if self._task.args.get("state", "present") != "absent":
                # Before anything may attach there: a host that was off when an order came gets it now.
                order_work.refuse_without_orders(self, task_vars)
            result.update(self.release(bundle, task_vars))
        except (OSError, FleetError) as error:
            result.update(failed(explain(error)))
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def judge(self):
        """Check the options; return the bundle that is to be deployed, None where the state needs none."""
        arguments = self._task.args
        for key in arguments:
            if key not in PUBLIC:
                raise FleetError("EF_ARGUMENT", f"{key}: is not an option; {did_you_mean(key, PUBLIC)}")
        if arguments.get("state", "present") != "present":
            return None
        path = self.bundle_path(arguments.get("bundle"))
        # What is judged here is what is sent: each file is held to this manifest once more when it is.
        bundle = load_bundle(path)
        check_planned(bundle.manifest.digest, arguments.get("digest"), path)
        return bundle

    def release(self, bundle, task_vars):
        """Return the module's result."""
        arguments = dict(self._task.args)
        if bundle is None:
            return self.execute(arguments, task_vars)
        arguments["features"] = resolve_features(arguments.get("features"), bundle.contracts)
        arguments["manifest"] = bundle.manifest.data.decode("ascii")
        arguments["signature"] = bundle.signature.decode("ascii", "replace")
        answer = self.execute(arguments, task_vars)
        if not answer.pop("needs_archive", False):
            return answer
        arguments["archive"] = self.send(bundle)
        return self.execute(arguments, task_vars)

    def bundle_path(self, path):
        """Return the bundle's path on the controller: as it stands, else relative to the playbook."""
        if not path or not isinstance(path, str):
            raise FleetError("EF_ARGUMENT", "bundle: is missing; give the path of a bundle on the controller")
        expanded = Path(path).expanduser()
        return str(expanded) if expanded.exists() else self._loader.path_dwim(str(expanded))

    def execute(self, arguments, task_vars):
        """Run the module once on the host."""
        return self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars, wrap_async=False)

    def send(self, bundle):
        """Copy the bundle as a tar into the host's temporary folder of this task; return its path there."""
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "bundle.tar")
        fd, local = tempfile.mkstemp(prefix="ebpf-fleet-", suffix=".tar")
        try:
            with os.fdopen(fd, "wb") as file:
                write_tar(bundle, file)
            self._transfer_file(local, remote)
        finally:
            Path(local).unlink()
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return remote
