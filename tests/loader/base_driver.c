/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * The functions of bpf/loader/base on what is given here, which is bytes in hexadecimal where it says HEX:
 *   plain HEX               may a bundle hold this path: 1 or 0
 *   utf8 HEX                bytes of the sequence at its start
 *   string HEX SIZE         as JSON, at most SIZE bytes of it
 *   cut SIZE HEX...         pieces added to a buffer of SIZE bytes: what stands there, and what is used
 *   uint N, decimal N DIGITS, head HELP, label HEX, refuse HEX, reason HEX
 *   canonical HEX           a JSON document as it is signed; depth HEX: its depth
 *   parse HEX               what is wrong with a document, or "fine"
 *   read PATH LIMIT FOLLOW  a control file: its end, its owner, its bytes and the 0 behind them
 *   whole PATH SIZE         a file of exactly SIZE bytes: its end
 *   beneath FOLDER PATH     a file below a folder: its end
 *   folder PATH             may others write to it: the end and the sentence
 *   write FOLDER NAME MODE HEX
 *   sha PATH, hex HEX       the digest of a file; is this one: 0 or -1
 *   bag MAX N               N keys put into a bag of MAX, twice: how many it took, and finds with their value
 *   log LEVEL TEXT          one line on stderr; lost: of lines that nobody reads
 *   budgets                 every entry of the table, a line each
 */
/* clang-format on */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/budgets.h"
#include "base/dict.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/prom.h"
#include "base/reason.h"
#include "base/refusal.h"
#include "base/text.h"
#include "base/util.h"

/* The bytes alone, so that a sanitizer sees a look at the next; a 0 is added to
 * "text" only. */
static uint8_t *bytes(const char *hex, size_t *size) {
  uint8_t *data;

  *size = strlen(hex) / 2;
  data = malloc(*size ? *size : 1);
  for (size_t i = 0; i < *size; i++) {
    char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};

    data[i] = (uint8_t)strtoul(pair, NULL, 16);
  }
  return data;
}

static char *text(const char *hex) {
  size_t size;
  uint8_t *data = bytes(hex, &size);

  data = realloc(data, size + 1);
  data[size] = 0;
  return (char *)data;
}

static void print_end(int fd, const char *why) {
  printf("%s %s\n", fd < 0 ? strerrorname_np(-fd) : "0", why);
  if (fd > 0)
    close(fd);
}

static void do_utf8(char **word) {
  size_t size;
  _cleanup_free_ uint8_t *data = bytes(word[0], &size);

  printf("%zu\n", ef_utf8_length(data, size));
}

static void do_string(char **word) {
  size_t size;
  _cleanup_free_ uint8_t *data = bytes(word[0], &size);
  char line[1024];
  struct ef_text out = {.at = line, .size = sizeof(line)};

  ef_text_add_string(&out, (const char *)data, strtoul(word[1], NULL, 10));
  printf("%.*s\n", (int)out.used, line);
}

static void do_cut(char **word) {
  char line[64];
  struct ef_text out = {.at = line, .size = strtoul(word[0], NULL, 10)};

  memset(line, '.', sizeof(line));
  for (word++; *word; word++) {
    size_t size;
    _cleanup_free_ uint8_t *data = bytes(*word, &size);

    if (**word == '+') {
      _cleanup_free_ char *formatted = text(*word + 1);

      ef_text_add(&out, "%s", formatted);
    } else
      ef_text_add_bytes(&out, data, size);
  }
  for (char *at = line; at < line + 24; at++)
    putchar(*at ? *at : '0');
  printf(" %zu\n", out.used);
}

static void do_uint(char **word) {
  char line[32];
  struct ef_text out = {.at = line, .size = sizeof(line)};

  ef_text_add_uint(&out, strtoull(word[0], NULL, 10));
  printf("%.*s\n", (int)out.used, line);
}

static void do_decimal(char **word) {
  ef_prom_decimal(stdout, strtoull(word[0], NULL, 10), atoi(word[1]));
  putchar('\n');
}

static void do_head(char **word) {
  ef_prom_head(stdout, "name", "gauge", word[0]);
}

static void do_label(char **word) {
  _cleanup_free_ char *value = text(word[0]);

  ef_prom_label(stdout, value);
  putchar('\n');
}

static void do_refuse(char **word) {
  _cleanup_free_ char *value = text(word[0]);
  struct ef_refusal why = {0};
  json_t *doc;
  int err = ef_refuse(&why, "EF_X", value, "%s", value);

  printf("%d ", err);
  doc = ef_refusal_json(&why);
  ef_json_print(stdout, doc);
  json_decref(doc);
}

static void do_reason(char **word) {
  _cleanup_free_ char *value = text(word[0]);
  struct ef_reason reason;

  ef_reason_set(&reason, "EF_X", "%s", value);
  printf("%s [%s]\n", ef_reason_code(&reason), ef_reason_text(&reason));
}

static void do_canonical(char **word) {
  size_t size, length = 0;
  _cleanup_free_ uint8_t *data = bytes(word[0], &size);
  char why[256];
  json_t *doc = ef_json_parse(data, size, why, sizeof(why));
  _cleanup_free_ char *out = doc ? ef_json_canonical(doc, &length) : NULL;

  if (out)
    fwrite(out, 1, length, stdout);
  else
    printf("! %s\n", doc ? strerrorname_np(errno) : why);
  json_decref(doc);
}

static void do_depth(char **word) {
  size_t size;
  _cleanup_free_ uint8_t *data = bytes(word[0], &size);

  printf("%zu\n", ef_json_depth(data, size));
}

static void do_parse(char **word) {
  size_t size;
  _cleanup_free_ uint8_t *data = bytes(word[0], &size);
  char why[256] = "fine";
  json_t *doc = ef_json_parse(data, size, why, sizeof(why));

  printf("%d %s\n", doc != NULL, why);
  json_decref(doc);
}

static void do_read(char **word) {
  struct ef_control_rules rules = {.limit = strtoul(word[1], NULL, 10),
                                   .follow = word[2][0] == '1',
                                   .remedy = "repair it"};
  struct ef_control control;
  char why[512] = "";
  int err = ef_control_read(word[0], &rules, &control, why, sizeof(why));

  printf("%s %" PRId64 " %zu ", err ? strerrorname_np(-err) : "0", control.uid,
         control.size);
  if (!err)
    printf("[%.*s] %d\n", (int)control.size, (char *)control.data,
           control.data[control.size]);
  else
    printf("%s\n", why);
  free(control.data);
}

static void do_document(char **word) {
  const struct ef_control_rules rules = {.limit = 100, .remedy = "repair it"};
  char why[512] = "";
  int err;
  json_t *doc = ef_json_read(word[0], &rules, &err, why, sizeof(why));

  printf("%d %s %s\n", doc != NULL, err ? strerrorname_np(-err) : "0", why);
  json_decref(doc);
}

static void do_whole(char **word) {
  _cleanup_close_ int fd = open(word[0], O_RDONLY | O_CLOEXEC);
  _cleanup_free_ uint8_t *data = NULL;
  int err = ef_read_whole(fd, strtoul(word[1], NULL, 10), &data);

  print_end(err, data ? (char *)data : "-");
}

static void do_beneath(char **word) {
  _cleanup_close_ int folder = open(word[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct stat st = {0};
  int fd = ef_open_beneath(folder, word[1], &st);
  char size[32];

  snprintf(size, sizeof(size), "%jd", (intmax_t)st.st_size);
  print_end(fd, fd < 0 ? "-" : size);
}

static void do_folder(char **word) {
  char why[512] = "";
  int err = ef_folder_check(word[0], why, sizeof(why));

  print_end(err, why);
}

static void do_write(char **word) {
  size_t size;
  _cleanup_free_ uint8_t *data = bytes(word[3], &size);
  int err = ef_write_atomic(word[0], word[1], data, size,
                            (mode_t)strtoul(word[2], NULL, 8));

  print_end(err, "");
}

static void do_sha(char **word) {
  _cleanup_close_ int fd = open(word[0], O_RDONLY | O_CLOEXEC);
  uint8_t digest[EF_SHA256_SIZE];
  char hex[EF_SHA256_HEX] = "-";
  int err = ef_sha256_fd(fd, digest);

  if (!err)
    ef_sha256_hex(digest, hex);
  print_end(err, hex);
}

static void do_hex(char **word) {
  uint8_t digest[EF_SHA256_SIZE] = {0};

  printf("%d", ef_sha256_from_hex(word[0], digest));
  printf(" %02x%02x\n", digest[0], digest[EF_SHA256_SIZE - 1]);
}

static void do_bag(char **word) {
  size_t max = strtoul(word[0], NULL, 10), n = strtoul(word[1], NULL, 10),
         taken = 0, right = 0;
  struct ef_dict bag;

  memset(&bag, 0xa5, sizeof(bag));
  ef_dict_init(&bag, max);
  for (int turn = 0; turn < 2; turn++)
    for (size_t i = 0; i < n; i++) {
      char key[32];
      /* One key is the beginning of another. */
      size_t size = (size_t)snprintf(key, sizeof(key), "%zu", i);
      struct ef_sum *value = ef_dict_need(&bag, key, size);

      if (value && !turn && !value->raw && !value->weighted)
        taken++;
      if (value)
        *value = (struct ef_sum){value->raw + i + 1, 2 * i};
    }
  for (size_t i = 0; i < n; i++) {
    char key[32];
    struct ef_sum *value =
        ef_dict_find(&bag, key, (size_t)snprintf(key, sizeof(key), "%zu", i));

    right += value && value->raw == 2 * (i + 1) && value->weighted == 2 * i;
  }
  printf("%zu %zu %zu", taken, right, bag.n);
  ef_dict_clear(&bag);
  printf(" %zu %d\n", bag.n, ef_dict_find(&bag, "0", 1) != NULL);
}

static void do_log(char **word) {
  ef_log((enum ef_log_level)atoi(word[0]), "%s", word[1]);
}

/* Stderr is a pipe that is full: two lines are lost, the next two are told
 * after what was lost. */
static void do_lost(char **word) {
  int ends[2];
  char room[4096];
  ssize_t got;

  (void)word;
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
    abort();
  memset(room, 'x', sizeof(room));
  while (write(ends[1], room, sizeof(room)) > 0)
    ;
  dup2(ends[1], STDERR_FILENO);
  ef_log_never_wait();
  ef_warn("one");
  ef_warn("two");
  while (read(ends[0], room, sizeof(room)) > 0)
    ;
  ef_warn("three");
  ef_warn("four");
  got = read(ends[0], room, sizeof(room));
  fwrite(room, 1, got > 0 ? (size_t)got : 0, stdout);
}

static void do_budgets(char **word) {
  (void)word;
  for (enum ef_budget i = 0; i < EF_N_BUDGETS; i++) {
    const struct ef_budget_kind *kind = ef_budget_kind(i);
    const char *own = ef_budget_code(false, i),
               *of_host = ef_budget_code(true, i);

    printf("%s %s %s %s %d %d %" PRId64 " %" PRId64 " %" PRId64 "\n",
           ef_budget_name(i), ef_budget_unit(i), own ? own : "-",
           of_host ? of_host : "-", ef_budget_is_of(i, false),
           ef_budget_is_of(i, true), kind->least, kind->most, kind->of_host);
  }
}

static void do_plain(char **word) {
  _cleanup_free_ char *path = text(word[0]);

  printf("%d\n", ef_path_is_plain(path));
}

static const struct {
  const char *name;
  int words; /* at least */
  void (*run)(char **word);
} commands[] = {
    {"plain", 1, do_plain},     {"utf8", 1, do_utf8},
    {"string", 2, do_string},   {"cut", 1, do_cut},
    {"uint", 1, do_uint},       {"decimal", 2, do_decimal},
    {"head", 1, do_head},       {"label", 1, do_label},
    {"refuse", 1, do_refuse},   {"reason", 1, do_reason},
    {"depth", 1, do_depth},     {"canonical", 1, do_canonical},
    {"parse", 1, do_parse},     {"document", 1, do_document},
    {"read", 3, do_read},       {"whole", 2, do_whole},
    {"beneath", 2, do_beneath}, {"folder", 1, do_folder},
    {"write", 4, do_write},     {"sha", 1, do_sha},
    {"hex", 1, do_hex},         {"bag", 2, do_bag},
    {"log", 2, do_log},         {"lost", 0, do_lost},
    {"budgets", 0, do_budgets},
};

int main(int argc, char **argv) {
  for (size_t i = 0; argc > 1 && i < EF_ARRAY_SIZE(commands); i++)
    if (!strcmp(argv[1], commands[i].name) && argc - 2 >= commands[i].words) {
      commands[i].run(argv + 2);
      return 0;
    }
  return 2;
}
