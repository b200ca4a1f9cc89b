# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every other folder may use: text, files, documents, answers and errors.

Nothing here knows of BPF, releases or fleets.
"""
