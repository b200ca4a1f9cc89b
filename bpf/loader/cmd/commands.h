/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_COMMANDS_H
#define EF_COMMANDS_H

#include "base/version.h"

/* What follows a command's name, in --help and where its arguments are refused. */
#define EF_USAGE_VERIFY "DIR [--trust FILE] [--revoked FILE] [--self]"
#define EF_USAGE_INSPECT "[--all-structs] OBJECT"
#define EF_USAGE_CHECK "DIR [--attach] [--trust FILE] [--revoked FILE]"
#define EF_USAGE_RUN                                                                               \
	"--bundle DIR [--etc DIR] [--run DIR] [--state DIR] [--log DIR] [--interval SECONDS]"      \
	" [--trust FILE] [--revoked FILE] [--handover]"
#define EF_USAGE_STATUS "[--state DIR]"
#define EF_USAGE_LEFT "[--also FILE]"

/*
 * One function for each command. argv[0] is the command's name, so that
 * getopt_long() works as it stands. Returns an enum ef_exit.
 */
int cmd_verify(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_probe(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_left(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
