/* SPDX-License-Identifier: GPL-3.0-or-later */
/* In the place of libbpf's: bpf/include uses nothing of it here. */
