# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel matrix: what each kernel was predicted to run, and what the loader reached there."""
