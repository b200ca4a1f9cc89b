# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill switch and the way back.

Nothing here may use what a kill may have to end: contract, bundle, release, facts, rollout.
"""
