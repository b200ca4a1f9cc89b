# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that are not ours are taken off a host, and put back: a plan, a record, its steps, and the proof.

`host` puts it together on a host, `act`, `units` and `store` touch the host, the others are pure. Nothing here turns
off what is of ebpf.fleet, or knows of releases and contracts: that is the kill switch's.
"""
