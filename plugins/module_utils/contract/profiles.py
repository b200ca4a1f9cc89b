# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The profiles that a feature can reach on a host. The one home of their names; bpf/loader has the same."""

from __future__ import annotations

# What a variant of a contract can be.
OF_VARIANTS = ("full", "reduced")
# From most to least: all that the contract asks for, a lesser variant, does not run.
PROFILES = (*OF_VARIANTS, "disabled")
