# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one list of reason codes: what each means, what to do, and who gives it. Pure.

Nothing here knows how a reason is shown. docs/reason-codes.md is rendered from the list by tools/reason_codes.py; tests
hold the loader, the collector, the plugins and the playbooks to it.
"""
