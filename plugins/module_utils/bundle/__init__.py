# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signed set of features: made, read and judged. Nothing here writes to a host or knows what a host runs."""
