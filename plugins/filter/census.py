# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that turn what hosts answered into what a plan or a person needs."""

from __future__ import annotations

import functools
import os

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document, census, policy_ready, strata
from ansible_collections.ebpf.fleet.plugins.module_utils.report.census import census_html, census_markdown
from ansible_collections.ebpf.fleet.plugins.module_utils.report.matrix import matrix_html, matrix_markdown
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt, fault_of


def rollout_hosts(hostvars, last_census=None, told=False):
    """Return what a rollout plan needs of each host."""
    if told and fault_of(last_census):
        return last_census
    ask = functools.partial(strata.rollout_hosts, list(hostvars), last_census or None)
    return attempt(AnsibleFilterError, ask, told)


def _page(name, render, faults_of=capability_document.census_faults):
    """A filter that makes a page of a document; one that cannot be read is an error that names host and field."""

    def page(document):
        faults = faults_of(document)
        if faults:
            raise FleetError("EF_UNREADABLE", f"{name}: the document cannot be used: {faults}; write it again")
        return render(document)

    return lambda document: attempt(AnsibleFilterError, lambda: page(document))


def policy_refusals(hostvars, contracts, limits=None):
    """Return each policy feature that may not go to a host yet, with the sentence that says why."""
    return attempt(AnsibleFilterError, lambda: policy_ready.policy_refusals(list(hostvars), contracts, limits))


def report_paths(path, folder, name="census"):
    """Return where the three files of a report go; see the filter's documentation."""
    return attempt(AnsibleFilterError, lambda: _report_paths(path, folder, name))


def _report_paths(path, folder, name):
    if not isinstance(path, str) or not path.strip():
        raise FleetError("EF_ARGUMENT", "report_paths: the path is empty; name a file, a prefix or a folder")
    full = os.path.join(folder, os.path.expanduser(path))
    if path.endswith("/") or os.path.isdir(full):
        full = os.path.join(full, name)
    stem = next((full[: -len(end)] for end in (".json", ".md", ".html") if full.endswith(end)), full)
    return {"json": stem + ".json", "markdown": stem + ".md", "html": stem + ".html"}


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {
            "rollout_hosts": rollout_hosts,
            "capability_census": census.capability_census,
            "census_markdown": _page("census_markdown", census_markdown),
            "census_html": _page("census_html", census_html),
            "matrix_markdown": _page("matrix_markdown", matrix_markdown, capability_document.matrix_faults),
            "matrix_html": _page("matrix_html", matrix_html, capability_document.matrix_faults),
            "policy_refusals": policy_refusals,
            "report_paths": report_paths,
        }
