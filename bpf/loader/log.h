/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_LOG_H
#define EF_LOG_H

/* The syslog severities that we use; the numbers are what journald reads. */
enum ef_log_level {
	EF_LOG_ERR = 3,
	EF_LOG_WARNING = 4,
	EF_LOG_NOTICE = 5,
	EF_LOG_INFO = 6,
	EF_LOG_DEBUG = 7,
};

/* Messages less severe than this are left out. Default: EF_LOG_INFO. */
void ef_log_set_level(enum ef_log_level level);

/*
 * One line on stderr, without the caller's "\n": "<N>message" when systemd set
 * JOURNAL_STREAM, else "ebpf-loader: message". Control characters in the
 * message become '?', so that a file name cannot forge a line. At most 4095
 * bytes are written. errno is left as it was.
 */
void ef_log(enum ef_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define ef_err(...) ef_log(EF_LOG_ERR, __VA_ARGS__)
#define ef_warn(...) ef_log(EF_LOG_WARNING, __VA_ARGS__)
#define ef_notice(...) ef_log(EF_LOG_NOTICE, __VA_ARGS__)
#define ef_info(...) ef_log(EF_LOG_INFO, __VA_ARGS__)
#define ef_debug(...) ef_log(EF_LOG_DEBUG, __VA_ARGS__)

#endif
