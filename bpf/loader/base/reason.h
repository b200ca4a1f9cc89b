/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_REASON_H
#define EF_REASON_H

/* Why a feature is as it is: a code of docs/reason-codes.md and a sentence. */
struct ef_reason {
	const char *code; /* a literal; never NULL once set */
	char text[512];
};

const char *ef_reason_code(const struct ef_reason *reason); /* NULL: not set yet */
const char *ef_reason_text(const struct ef_reason *reason);

/* Fills in *reason; bytes that are not printable ASCII become spaces. */
void ef_reason_set(struct ef_reason *reason, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
