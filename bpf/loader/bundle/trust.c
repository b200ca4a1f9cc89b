/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/trust.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/paths.h"
#include "base/util.h"
#include "bundle/signers.h"

#define TRUST_FILE_MAX (1024 * 1024)
#define KRL_MAGIC "SSHKRL\n"
#define KRL_MAGIC_SIZE 8 /* with the final 0 */
#define BLANKS " \t"
#define BOM "\xef\xbb\xbf"
#define KEY_BEGINS "AAAA" /* the base64 of each public key's blob */
#define LOGGED_MAX 10	  /* unusable lines that are logged one by one */

/* Called for each line that is not empty, without its line end. 0, or -1 with *why. */
typedef int (*line_reader)(struct ef_trust *trust, const char *path, unsigned number,
			   const char *line, struct ef_refusal *why);

static int refuse_open(const char *path, int err, struct ef_refusal *why) {
	if (err == ELOOP || err == EINVAL || err == ENOTDIR)
		return ef_refuse(why, "EF_TRUST_MALFORMED", path,
				 "%s: not a regular file; put the file itself there", path);
	return ef_refuse(why, "EF_TRUST_MISSING", path,
			 "%s: cannot be opened (%s); install the trust file there", path,
			 strerror(err));
}

/* The whole file, which the caller frees; NULL and 0 when it may be and is absent. */
static int read_trust_file(const char *path, bool required, char **text, size_t *size,
			   struct ef_refusal *why) {
	char unsafe[400];
	struct stat st;
	_cleanup_close_ int fd = ef_open_safe(path, false, &st, unsafe, sizeof(unsafe));
	int err;

	*text = NULL;
	if (fd == -ENOENT && !required)
		return 0;
	if (fd < 0 && *unsafe)
		return ef_refuse(why, "EF_TRUST_MALFORMED", path, "%s", unsafe);
	if (fd < 0)
		return refuse_open(path, -fd, why);
	if (st.st_size > TRUST_FILE_MAX)
		return ef_refuse(why, "EF_TRUST_MALFORMED", path,
				 "%s: larger than %d bytes; remove what does not belong there",
				 path, TRUST_FILE_MAX);
	*size = (size_t)st.st_size;
	err = ef_read_whole(fd, *size, (uint8_t **)text);
	if (err)
		return ef_refuse(why, "EF_TRUST_MALFORMED", path, "%s: cannot be read (%s)", path,
				 strerror(-err));
	return 0;
}

static int check_text(const char *path, const char *text, size_t size, struct ef_refusal *why) {
	if (size >= KRL_MAGIC_SIZE && !memcmp(text, KRL_MAGIC, KRL_MAGIC_SIZE))
		return ef_refuse(why, "EF_TRUST_MALFORMED", path,
				 "%s: a binary KRL, which we cannot read; list the revoked public "
				 "keys, one a line",
				 path);
	if (memchr(text, 0, size))
		return ef_refuse(why, "EF_TRUST_MALFORMED", path,
				 "%s: holds a NUL byte; write it as plain text", path);
	return 0;
}

/* A line ends with LF or CR LF; a CR that stands elsewhere is a character of the line. */
static void end_line(char *line) {
	size_t length = strlen(line);

	if (length && line[length - 1] == '\r')
		line[length - 1] = 0;
}

/* Where one program sees the end of a line, another sees a character of a comment. */
static bool has_control(const char *line) {
	for (; *line; line++)
		if ((*line > 0 && *line < ' ' && *line != '\t') || *line == 0x7f)
			return true;
	return false;
}

static int read_lines(struct ef_trust *trust, const char *path, bool required, line_reader reader,
		      struct ef_refusal *why) {
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	unsigned number = 0;
	char *line, *rest;

	if (read_trust_file(path, required, &text, &size, why))
		return -1;
	if (!text)
		return 0;
	if (check_text(path, text, size, why))
		return -1;
	for (rest = text; (line = strsep(&rest, "\n"));) {
		number++;
		end_line(line);
		line += strspn(line, BLANKS);
		if (*line && reader(trust, path, number, line, why))
			return -1;
	}
	return 0;
}

static int refuse_memory(const char *path, struct ef_refusal *why) {
	return ef_refuse(why, "EF_UNKNOWN", path, "%s: out of memory while reading it", path);
}

/* One odd line must not stop every loader of a fleet, and leaving it out trusts no one more. */
static int leave_out(struct ef_trust *trust, const char *path, unsigned number, const char *fault) {
	if (++trust->n_unusable <= LOGGED_MAX && !trust->quiet)
		ef_warn("%s:%u: this line is not used: %s", path, number, fault);
	return 0;
}

static int read_signer(struct ef_trust *trust, const char *path, unsigned number, const char *line,
		       struct ef_refusal *why) {
	struct ef_signer signer, *grown;
	const char *fault;

	if (has_control(line))
		return leave_out(trust, path, number, "it holds a control character");
	if (*line == '#')
		return 0;
	if (ef_signer_parse(line, &signer, &fault) != EF_SIGNER_OK)
		return leave_out(trust, path, number, fault);
	grown = reallocarray(trust->signers, trust->n_signers + 1, sizeof(*grown));
	if (!grown) {
		ef_signer_clear(&signer);
		return refuse_memory(path, why);
	}
	trust->signers = grown;
	trust->signers[trust->n_signers++] = signer;
	return 0;
}

/* How many words of the line are public keys: of two, one would be read as a comment. */
static unsigned count_keys(const char *line) {
	unsigned count = 0;

	for (; *line; line += strcspn(line, BLANKS), line += strspn(line, BLANKS))
		count += !strncmp(line, KEY_BEGINS, strlen(KEY_BEGINS));
	return count;
}

/* A key may have options before it, as in authorized_keys; they revoke nothing less. */
static int parse_revoked(const char *line, struct ef_sshkey *key) {
	const char *behind;

	if (has_control(line) || count_keys(line) != 1)
		return -1;
	if (!ef_sshkey_parse(line, key))
		return 0;
	behind = ef_sshkey_skip_field(line);
	return behind ? ef_sshkey_parse(behind, key) : -1;
}

/* A line that is left out here would trust a key that somebody meant to revoke. */
static int read_revoked(struct ef_trust *trust, const char *path, unsigned number, const char *line,
			struct ef_refusal *why) {
	struct ef_sshkey key;
	void *grown;

	if (number == 1 && !strncmp(line, BOM, strlen(BOM)))
		line += strlen(BOM) + strspn(line + strlen(BOM), BLANKS);
	if (!*line || (*line == '#' && !has_control(line)))
		return 0;
	if (parse_revoked(line, &key))
		return ef_refuse(why, "EF_TRUST_MALFORMED", path,
				 "%s:%u: not one public key; write TYPE BASE64 on each line, with "
				 "LF at its end",
				 path, number);
	if (!key.is_ed25519)
		return 0;
	grown = reallocarray(trust->revoked, trust->n_revoked + 1, sizeof(*trust->revoked));
	if (!grown)
		return refuse_memory(path, why);
	trust->revoked = grown;
	memcpy(trust->revoked[trust->n_revoked++], key.ed25519, EF_ED25519_KEY);
	return 0;
}

int ef_trust_load(const struct ef_trust_paths *paths, struct ef_trust *trust,
		  struct ef_refusal *why) {
	*trust = (struct ef_trust){.quiet = paths->quiet};
	if (read_lines(trust, paths->allowed_signers, true, read_signer, why))
		return -1;
	if (trust->n_unusable > LOGGED_MAX && !trust->quiet)
		ef_warn("%s: %zu lines in all are not used", paths->allowed_signers,
			trust->n_unusable);
	if (!trust->n_signers)
		return ef_refuse(
		    why, "EF_TRUST_MALFORMED", paths->allowed_signers,
		    "%s: holds no usable line (not usable: %zu); add a signer's public "
		    "key",
		    paths->allowed_signers, trust->n_unusable);
	if (!paths->revoked_keys)
		return 0;
	return read_lines(trust, paths->revoked_keys, paths->revoked_required, read_revoked, why);
}

static bool is_revoked(const struct ef_trust *trust, const uint8_t key[EF_ED25519_KEY]) {
	for (size_t i = 0; i < trust->n_revoked; i++)
		if (!memcmp(trust->revoked[i], key, EF_ED25519_KEY))
			return true;
	return false;
}

/* One line's answer on a key that is the line's. */
static int judge_line(const struct ef_signer *signer, const char *namespace,
		      const struct ef_moment *at, const char *file, struct ef_refusal *why) {
	if (signer->namespaces && !ef_pattern_list_matches(signer->namespaces, namespace))
		return ef_refuse(why, "EF_SIG_NAMESPACE", file,
				 "allowed_signers does not let %s sign in the namespace %s; "
				 "correct namespaces= or sign with another key",
				 signer->principal, namespace);
	if (!at->known && (signer->valid_after || signer->valid_before))
		return ef_refuse(
		    why, "EF_CLOCK_UNKNOWN", file,
		    "the key of %s is trusted for a time, and this host's clock stands "
		    "before what has happened already; set the clock",
		    signer->principal);
	if (signer->valid_after && at->now < signer->valid_after)
		return ef_refuse(why, "EF_SIG_EXPIRED", file,
				 "the key of %s is not valid yet (valid-after); check this host's "
				 "clock or allowed_signers",
				 signer->principal);
	if (signer->valid_before && at->now > signer->valid_before)
		return ef_refuse(why, "EF_SIG_EXPIRED", file,
				 "the key of %s is no longer valid (valid-before); sign with a "
				 "current key",
				 signer->principal);
	return 0;
}

/* Of several lines of a key, the reason of the one that came nearest to allowing it. */
static void keep_nearest(struct ef_refusal *why, const struct ef_refusal *fault) {
	if (strcmp(why->code, "EF_SIG_EXPIRED") && strcmp(why->code, "EF_CLOCK_UNKNOWN"))
		*why = *fault;
}

int ef_trust_judge(const struct ef_trust *trust, const uint8_t key[EF_ED25519_KEY],
		   const char *namespace, const struct ef_moment *at, const char *file,
		   const char **principal, struct ef_refusal *why) {
	if (is_revoked(trust, key))
		return ef_refuse(why, "EF_SIG_REVOKED", file,
				 "the key that signed this bundle is revoked; sign it with a "
				 "current key");
	ef_refuse(why, "EF_SIG_UNKNOWN_SIGNER", file,
		  "the key that signed this bundle is on no usable line of allowed_signers "
		  "(lines not usable: %zu); add the signer or sign with a known key",
		  trust->n_unusable);
	for (size_t i = 0; i < trust->n_signers; i++) {
		const struct ef_signer *signer = &trust->signers[i];
		struct ef_refusal fault;

		if (memcmp(signer->key, key, EF_ED25519_KEY))
			continue;
		if (judge_line(signer, namespace, at, file, &fault)) {
			keep_nearest(why, &fault);
			continue;
		}
		*why = (struct ef_refusal){0};
		*principal = signer->principal;
		return 0;
	}
	return -1;
}

void ef_trust_clear(struct ef_trust *trust) {
	for (size_t i = 0; i < trust->n_signers; i++)
		ef_signer_clear(&trust->signers[i]);
	free(trust->signers);
	free(trust->revoked);
	*trust = (struct ef_trust){0};
}
