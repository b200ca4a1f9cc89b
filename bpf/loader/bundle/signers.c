/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/signers.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/util.h"

#define BLANKS " \t"

/* Only the last `*` is ever tried again, so that no pattern takes longer than its length by the
 * text's. */
static bool pattern_matches(const char *pattern, size_t length, const char *text) {
	const char *end = pattern + length, *star = NULL, *behind = NULL;

	while (*text) {
		if (pattern < end && *pattern == '*') {
			star = ++pattern;
			behind = text;
		} else if (pattern < end && (*pattern == '?' || *pattern == *text)) {
			pattern++;
			text++;
		} else if (star) {
			pattern = star;
			text = ++behind;
		} else {
			return false;
		}
	}
	while (pattern < end && *pattern == '*')
		pattern++;
	return pattern == end;
}

bool ef_pattern_list_matches(const char *patterns, const char *text) {
	bool matches = false;

	for (const char *at = patterns;; at++) {
		bool negated = *at == '!';
		size_t length;

		at += negated;
		length = strcspn(at, ",");
		if (pattern_matches(at, length, text)) {
			if (negated)
				return false;
			matches = true;
		}
		at += length;
		if (!*at)
			return matches;
	}
}

static bool digits_to_int(const char *text, size_t count, int *value) {
	*value = 0;
	for (size_t i = 0; i < count; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*value = *value * 10 + text[i] - '0';
	}
	return true;
}

static bool same_moment(const struct tm *left, const struct tm *right) {
	return left->tm_year == right->tm_year && left->tm_mon == right->tm_mon &&
	       left->tm_mday == right->tm_mday && left->tm_hour == right->tm_hour &&
	       left->tm_min == right->tm_min && left->tm_sec == right->tm_sec;
}

/* YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS; local time, or UTC with a Z behind it. */
static bool parse_time(const char *text, int64_t *seconds) {
	size_t length = strspn(text, "0123456789");
	bool utc = text[length] == 'Z';
	struct tm asked = {.tm_isdst = -1}, found;

	if (text[length + utc] || (length != 8 && length != 12 && length != 14))
		return false;
	digits_to_int(text, 4, &asked.tm_year);
	digits_to_int(text + 4, 2, &asked.tm_mon);
	digits_to_int(text + 6, 2, &asked.tm_mday);
	if (length > 8) {
		digits_to_int(text + 8, 2, &asked.tm_hour);
		digits_to_int(text + 10, 2, &asked.tm_min);
	}
	if (length > 12)
		digits_to_int(text + 12, 2, &asked.tm_sec);
	asked.tm_year -= 1900;
	asked.tm_mon -= 1;
	found = asked;
	*seconds = utc ? timegm(&found) : mktime(&found);
	return same_moment(&asked, &found) && *seconds > 0;
}

static bool is_plain(char letter) {
	return letter >= ' ' && letter <= '~';
}

/* The text between the quotes at *at, a copy; *at moves behind the closing one. */
static char *take_quoted(const char **at) {
	const char *end;
	char *text;

	if (**at != '"')
		return NULL;
	end = strchr(*at + 1, '"');
	if (!end)
		return NULL;
	for (const char *letter = *at + 1; letter < end; letter++)
		if (!is_plain(*letter) || *letter == '\\')
			return NULL;
	text = strndup(*at + 1, (size_t)(end - *at - 1));
	*at = end + 1;
	return text;
}

static bool take_name(const char **at, const char *name) {
	size_t length = strlen(name);

	if (strncasecmp(*at, name, length))
		return false;
	*at += length;
	return true;
}

static enum ef_signer_line unusable(const char **why, const char *sentence) {
	*why = sentence;
	return EF_SIGNER_UNUSABLE;
}

static enum ef_signer_line parse_time_option(const char **at, int64_t *seconds, const char **why) {
	_cleanup_free_ char *text = take_quoted(at);

	if (*seconds)
		return unusable(why, "an option is given twice");
	if (!text || !parse_time(text, seconds))
		return unusable(why, "a time is not \"YYYYMMDD[HHMM[SS]][Z]\" in quotes");
	return EF_SIGNER_OK;
}

static enum ef_signer_line parse_namespaces(const char **at, struct ef_signer *signer,
					    const char **why) {
	if (signer->namespaces)
		return unusable(why, "an option is given twice");
	signer->namespaces = take_quoted(at);
	if (!signer->namespaces)
		return unusable(why, "namespaces= has no value in quotes");
	return EF_SIGNER_OK;
}

static enum ef_signer_line parse_option(const char **at, struct ef_signer *signer,
					const char **why) {
	if (take_name(at, "namespaces="))
		return parse_namespaces(at, signer, why);
	if (take_name(at, "valid-after="))
		return parse_time_option(at, &signer->valid_after, why);
	if (take_name(at, "valid-before="))
		return parse_time_option(at, &signer->valid_before, why);
	return unusable(why,
			"it has an option other than namespaces, valid-after and valid-before");
}

static enum ef_signer_line parse_options(const char *at, struct ef_signer *signer,
					 const char **why) {
	for (;;) {
		enum ef_signer_line kind = parse_option(&at, signer, why);

		if (kind != EF_SIGNER_OK)
			return kind;
		if (!*at || strchr(BLANKS, *at))
			break;
		if (*at++ != ',')
			return unusable(why, "its options are not comma-separated");
	}
	if (signer->valid_before && signer->valid_before <= signer->valid_after)
		return unusable(why, "valid-before is not later than valid-after");
	return EF_SIGNER_OK;
}

/* Of visible ASCII and spaces, and no name between the commas is empty. */
static bool is_list_of_names(const char *names) {
	char before = ',';

	for (; *names; before = *names++)
		if (!is_plain(*names) || (*names == ',' && before == ','))
			return false;
	return before != ',';
}

/*
 * The first principal of the field. The signer goes into reports as a name, so
 * a pattern is of no use there.
 */
static enum ef_signer_line parse_principal(const char *field, size_t length,
					   struct ef_signer *signer, const char **why) {
	_cleanup_free_ char *names = NULL;

	if (length >= 2 && field[0] == '"' && field[length - 1] == '"') {
		field++;
		length -= 2;
	}
	names = strndup(field, length);
	if (!names || !is_list_of_names(names) || strpbrk(names, "\"\\"))
		return unusable(why, "its principals cannot be read");
	if (strpbrk(names, "*?!"))
		return unusable(why, "its principals hold a pattern; name the signer in full");
	names[strcspn(names, ",")] = 0;
	signer->principal = TAKE_PTR(names);
	return EF_SIGNER_OK;
}

/* `rest` is "[OPTIONS] TYPE BASE64 [COMMENT]". */
static enum ef_signer_line parse_key(const char *rest, struct ef_signer *signer, const char **why) {
	enum ef_signer_line kind = EF_SIGNER_OK;
	struct ef_sshkey key;

	if (ef_sshkey_parse(rest, &key)) {
		const char *text = ef_sshkey_skip_field(rest);

		if (!text || ef_sshkey_parse(text, &key))
			return unusable(why, "it holds no readable public key");
		kind = parse_options(rest, signer, why);
	}
	if (kind == EF_SIGNER_OK && !key.is_ed25519)
		return unusable(why, "its key is not of type ssh-ed25519");
	memcpy(signer->key, key.ed25519, EF_ED25519_KEY);
	return kind;
}

enum ef_signer_line ef_signer_parse(const char *line, struct ef_signer *signer, const char **why) {
	const char *rest = ef_sshkey_skip_field(line);
	enum ef_signer_line kind;
	size_t length;

	*signer = (struct ef_signer){0};
	if (!rest || !*rest)
		return unusable(why, "it is not PRINCIPALS [OPTIONS] KEY");
	for (length = (size_t)(rest - line); length && strchr(BLANKS, line[length - 1]);)
		length--;
	if (!length)
		return unusable(why, "it begins with a blank and names no one");
	kind = parse_key(rest, signer, why);
	if (kind == EF_SIGNER_OK)
		kind = parse_principal(line, length, signer, why);
	if (kind != EF_SIGNER_OK)
		ef_signer_clear(signer);
	return kind;
}

void ef_signer_clear(struct ef_signer *signer) {
	free(signer->principal);
	free(signer->namespaces);
	*signer = (struct ef_signer){0};
}
