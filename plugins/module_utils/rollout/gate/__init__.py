# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement of a batch, by what was measured. Pure: no file, no clock, no host.

checks.py lists every check as one record (record.py says of what a record is made); the judges stand in the modules
that it imports, judge.py makes the verdict of them, reasons.py says why a batch is not promoted, and arguments.py
refuses what an operator gave wrongly.
"""
