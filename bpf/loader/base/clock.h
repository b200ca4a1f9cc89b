/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_CLOCK_H
#define EF_CLOCK_H

#include <stdint.h>

/* Nanoseconds of a clock (CLOCK_...). */
int64_t ef_clock_ns(int clock);

#endif
