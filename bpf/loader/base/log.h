/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_LOG_H
#define EF_LOG_H

/* The syslog severities that we use; the numbers are what journald reads. */
enum ef_log_level {
	EF_LOG_ERR = 3,
	EF_LOG_WARNING = 4,
	EF_LOG_NOTICE = 5,
	EF_LOG_INFO = 6,
};

/*
 * From now on a message that stderr does not take at once is lost and counted;
 * the next that it takes says how many. Else a journal that hangs stops us too.
 */
void ef_log_never_wait(void);

/*
 * One line on stderr, without the caller's "\n": "<N>message" when systemd set
 * JOURNAL_STREAM, else "ebpf-loader: message". Control characters in the
 * message become '?', so that a file name cannot forge a line. At most 4095
 * bytes are written. errno is left as it was.
 */
void ef_log(enum ef_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a whole text of any length; prefix is not for journald. The text holds no "\n". */
void ef_log_line(enum ef_log_level level, const char *prefix, const char *text);

#define ef_err(...) ef_log(EF_LOG_ERR, __VA_ARGS__)
#define ef_warn(...) ef_log(EF_LOG_WARNING, __VA_ARGS__)
#define ef_notice(...) ef_log(EF_LOG_NOTICE, __VA_ARGS__)

#endif
