/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PERF_H
#define EF_PERF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EF_PERF_CPU_BYTES (64 * 1024) /* data of one CPU's buffer */

/*
 * The buffers of a perf_event_array: one for each CPU that was online when they
 * were made. A program on a CPU without one cannot output (-ENOENT) and counts
 * the record as dropped, until the buffers are made again. Records of one CPU
 * come in order; those of several come one CPU after the other.
 */
struct ef_perf;

/* Takes one record; false ends the read behind it. record is aligned to 4 bytes. */
typedef bool (*ef_perf_fn)(void *ctx, const void *record, size_t size);

/* NULL with errno on failure: EPERM is CAP_PERFMON or the memory that a user may lock. */
struct ef_perf *ef_perf_new(int map_fd, ef_perf_fn take, void *ctx);

void ef_perf_free(struct ef_perf *perf);

/* A descriptor that becomes readable when a CPU's buffer is a quarter full. */
int ef_perf_fd(const struct ef_perf *perf);

/* Read every CPU's buffer until it is empty or take() says stop; the next read begins there. */
void ef_perf_read(struct ef_perf *perf);

/* Bytes in the buffers that no one read yet, and bytes of the buffers. */
uint64_t ef_perf_lag(const struct ef_perf *perf);
uint64_t ef_perf_bytes(const struct ef_perf *perf);

/* The first 8 bytes of the oldest unread record, ktime_ns, the least of all buffers; 0: not known.
 */
uint64_t ef_perf_next(const struct ef_perf *perf);

/*
 * Records that the kernel could not write, by its own count. It tells only when
 * it writes the next record of that CPU: the last losses may never be told.
 */
uint64_t ef_perf_lost(const struct ef_perf *perf);

/* Did a CPU come or go since the buffers were made? */
bool ef_perf_stale(const struct ef_perf *perf);

#endif
