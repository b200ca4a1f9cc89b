# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kernel is asked, and what its images, tables and cgroups say.

Nothing here knows of our releases or features.
"""
