/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PROM_H
#define EF_PROM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Prometheus' text format (version 0.0.4), as far as it needs care. One bad
 * line makes a reader refuse the whole file, so what comes from a contract, a
 * kernel or a process is escaped, and what is not UTF-8 becomes U+FFFD.
 */

/* # HELP and # TYPE of the metric ebpf_fleet_NAME. */
void ef_prom_head(FILE *out, const char *name, const char *type, const char *help);

/* A label's value with its quotes. */
void ef_prom_label(FILE *out, const char *value);

/* The same of at most size bytes, which need not end with a 0. */
void ef_prom_quoted(FILE *out, const char *value, size_t size);

/* n / 10^digits (0 to 18), without a detour over floating point. */
void ef_prom_decimal(FILE *out, uint64_t n, int digits);

#endif
