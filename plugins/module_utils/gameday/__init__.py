# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Game days: faults that are injected on purpose, and whether what was seen is what our pages say.

`host` and `act` touch the host, the others are pure. A fault lives in a unit of its own that systemd ends and takes
back. Nothing here judges a rollout, gives a kill order, or changes what is kept on a disk.
"""
