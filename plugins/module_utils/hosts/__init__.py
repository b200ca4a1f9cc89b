# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of an inventory, and how many hosts are asked at once. Nothing here knows what they are asked."""
