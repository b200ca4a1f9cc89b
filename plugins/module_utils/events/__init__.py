# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an alert may bring about: who may send one, what it asks for, and how often that is done.

Nothing here opens a socket, reads a clock or a file, or runs a playbook: the event source of extensions/eda does.
Nothing here takes an order back.
"""
