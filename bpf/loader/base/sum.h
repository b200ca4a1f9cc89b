/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SUM_H
#define EF_SUM_H

#include <stdint.h>

/*
 * A sum as it was measured, and the same with each value times the weight that it was counted
 * with: an estimate of what it would be without sampling. As in bpf/include/ef.h.
 */
struct ef_sum {
	uint64_t raw;
	uint64_t weighted;
};

static inline void ef_sum_add(struct ef_sum *sum, const struct ef_sum *more) {
	sum->raw += more->raw;
	sum->weighted += more->weighted;
}

static inline uint64_t ef_sum_raw(const struct ef_sum *sum) {
	return sum->raw;
}

static inline uint64_t ef_sum_weighted(const struct ef_sum *sum) {
	return sum->weighted;
}

#endif
