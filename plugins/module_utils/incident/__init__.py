# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done in an incident: evidence of hosts, what costs too much and where, and how far it reaches.

Nothing here reaches a host, reads a clock or writes a file.
"""
