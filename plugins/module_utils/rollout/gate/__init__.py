# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement of a batch, by what was measured. Pure: no file, no clock, no host."""
