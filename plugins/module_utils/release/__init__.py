# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has installed and wants: its store, plan, service and trust. Nothing here knows of other hosts."""
