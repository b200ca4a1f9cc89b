# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every BPF object on hosts, whoever's it is: one host's document, the fleet's, conflicts, and what is new.

`ask` asks the kernel, the others are pure. Nothing here changes a host, or knows of releases and contracts.
"""
