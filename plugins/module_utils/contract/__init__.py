# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a feature promises, and whether its objects keep it. Nothing here knows of a bundle or a host."""
