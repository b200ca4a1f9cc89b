# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a rollout as a file on the controller, of the ledger and of the records in the same folder."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files, bounded
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.report.rollout import report
from ansible_collections.ebpf.fleet.plugins.module_utils.report.rollout_page import rollout_html

# A record has every check of every host of a batch; a larger file was not written by us.
RECORD_LIMIT = 1 << 30


def page_of(rollout, entries, records, alive):
    """The page of a rollout; FleetError where the ledger does not have it. `records` is a folder, or None."""
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return rollout_html(report(rollout, entries, records_in(records), alive), written)


def write_record(record, folder):
    """Write the record of a batch for people and for the report; returns its path, FleetError where it cannot be."""
    if not folder:
        raise FleetError("EF_ARGUMENT", "record: has no folder to go to; give it as report")
    place = Path(folder)
    path = place / f"batch-{record['number']:02d}.json"
    text = json.dumps(record, indent=4, sort_keys=True)
    try:
        atomic_files.replace_file(path, text.encode("utf-8"), 0o644, place)
    except OSError as error:
        raise explain(error, "EF_ARGUMENT") from error
    return str(path)


def write(rollout, entries, folder, alive):
    """Write the page beside the records in `folder`; returns its path, FleetError where it cannot be written."""
    place = Path(folder)
    path = place / f"rollout-{rollout}.html"
    try:
        page = page_of(rollout, entries, place, alive)
        atomic_files.replace_file(path, page.encode("utf-8"), 0o644, place)
    except OSError as error:
        raise explain(error, "EF_ARGUMENT") from error
    return str(path)


def records_in(folder):
    """The records of batches in a folder; a file that is not one is passed over."""
    found = []
    for path in sorted(Path(folder).glob("batch-*.json")) if folder is not None else ():
        try:
            if path.stat().st_size <= RECORD_LIMIT:
                document = bounded.parse_json(path.read_text(encoding="utf-8"))
                found += [document] if isinstance(document, dict) else []
        except (OSError, ValueError):
            continue
    return found
