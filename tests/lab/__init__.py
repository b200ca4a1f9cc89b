# SPDX-License-Identifier: GPL-3.0-or-later
"""The VM lab: a fleet of small QEMU guests with different kernels, reached over SSH.

Run ``python3 -m tests.lab --help`` from the repository's root. What uses the lab sees an
ordinary SSH inventory, ``inventories/lab/hosts.yml``; nothing else knows that it exists.
"""
