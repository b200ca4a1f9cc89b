/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The whole loader, cmd/main.c with it, under sanitizers: this file only gives it a name. */
const char ef_whole[] = "the loader, under sanitizers";
