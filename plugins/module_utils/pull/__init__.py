# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pull channel: what a host runs to fetch, judge and follow a signed kill list.

Nothing here may use a release or its state: contract, release, facts, rollout. Of a bundle's room it uses the verifier
of signatures only. All of it is copied to hosts: Python 3.8's standard library, and no Ansible.
"""
