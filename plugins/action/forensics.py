# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the evidence that hosts sent in a folder on the controller, each file checked first."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded, values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.atomic_files import write_file
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.incident import bundles, evidence, script
from ansible_collections.ebpf.fleet.plugins.plugin_utils.controller_action import ControllerAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

ARGUMENTS = {
    "step": {"type": "str", "required": True, "choices": ["begin", "keep"]},
    "folder": {"type": "path", "required": True},
    "answers": {"type": "dict", "default": {}},
    "file_bytes": {"type": "int", "default": script.FILE_BYTES[1]},
    "total_bytes": {"type": "int", "default": script.TOTAL_BYTES[1]},
}
RAW = "raw"
RECORD = "forensics.json"


class ActionModule(ControllerAction):
    """Runs on the controller, once for all hosts."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        if self._task.check_mode:
            return {**result, "skipped": True, "changed": False, "msg": "check mode asks no host and keeps nothing"}
        try:
            if arguments["step"] == "begin":
                folder = make_folder(Path(arguments["folder"]), time.gmtime())
                return {**result, "changed": True, "folder": str(folder), "raw": str(folder / RAW)}
            found = keep(Path(arguments["folder"]), values.plain(arguments["answers"]), arguments)
        except FleetError as error:
            return {**result, **failed(error)}
        except OSError as error:
            return {**result, **failed(explain(error, "EF_ARGUMENT"))}
        said = bundles.lines(found, arguments["folder"])
        reasons = {name: bundles.reason(one) for name, one in found["hosts"].items() if not one["complete"]}
        return {**result, "changed": True, "lines": said, "reasons": reasons, "failed_hosts": sorted(reasons),
                "record": str(Path(arguments["folder"]) / RECORD), "families": families(found)}  # fmt: skip


def families(found):
    """{host: kernel family} of those that said it."""
    return {name: one["family"] for name, one in found["hosts"].items() if one["family"]}


def make_folder(parent, now):
    """A new folder in the parent, for its owner only, with one in it for what hosts send."""
    if not parent.is_dir():
        raise FleetError(
            "EF_ARGUMENT", f"ebpf_fleet_forensics_dir: {parent} is not a folder on the controller; make it", str(parent)
        )
    name = time.strftime("forensics-%Y%m%dT%H%M%SZ", now)
    for number in range(1, 100):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        (folder / RAW).mkdir(mode=0o700)
        return folder
    raise FleetError("EF_ARGUMENT", f"{parent}: has a hundred folders of this second; run again", str(parent))


def keep(folder, answers, limits):
    """Check and write what each host sent, and the record of all; returns the record."""
    hosts = {str(host): one_host(folder, str(host), answer) for host, answer in sorted(answers.items())}
    given = {name: limits[name] for name in ("file_bytes", "total_bytes")}
    found = bundles.document(hosts, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), given)
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    write_file(folder / RECORD, text.encode(), 0o600)
    # Empty by now: what a host sent lies in files of its own, or was not fit to be kept.
    (folder / RAW).rmdir()
    return found


def one_host(folder, host, answer):
    """The entry of one host, whose files are written; what it sent raw is removed."""
    raw = folder / RAW / Path(str(answer.get("stdout_file", ""))).name
    output, wrong = sent(raw) if answer.get("stdout_file") else ("", "")
    bundle = evidence.read(output)
    if wrong:
        bundle = bundle._replace(faults=[*bundle.faults, wrong])
    entry = bundles.entry(host, answer, bundle)
    if entry["folder"]:
        place = folder / entry["folder"]
        place.mkdir(mode=0o700)
        for one in bundle.files.values():
            if one.text:
                write_file(place / one.name, one.text.encode("ascii"), 0o600)
        write_file(place / "SHA256SUMS", bundle.sums.encode("ascii"), 0o600)
    if answer.get("stdout_file"):
        raw.unlink(missing_ok=True)
    return entry


def sent(path):
    """(what a host sent, why it cannot be read)."""
    try:
        return bounded.read_text(path, 2 * evidence.BUNDLE_LIMIT) or "", ""
    except bounded.BoundedReadError as error:
        return "", f"what it sent cannot be read on the controller: {error}"
