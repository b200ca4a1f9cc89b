/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SIGNAL_H
#define EF_SIGNAL_H

/* The words of a contract's signals. */

enum ef_signal_kind { EF_SIGNAL_HISTOGRAM, EF_SIGNAL_EVENTS, EF_SIGNAL_COUNTERS };
enum ef_scale { EF_SCALE_NANOSECONDS, EF_SCALE_MICROSECONDS, EF_SCALE_BYTES, EF_SCALE_COUNT };

/* What an events signal does when its reader cannot keep up. */
enum ef_backpressure_kind {
	EF_BACKPRESSURE_DROP,	  /* what finds no room is dropped */
	EF_BACKPRESSURE_SAMPLE,	  /* the program passes over more: sampled_out */
	EF_BACKPRESSURE_AGGREGATE /* records are told as one line a group: sampled_out too */
};

/* "drop", "sample", "aggregate". */
const char *ef_backpressure_name(enum ef_backpressure_kind kind);

/* The kind of that name, or -1. */
int ef_backpressure_kind_of(const char *name);

#endif
