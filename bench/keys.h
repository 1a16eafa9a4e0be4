/* SPDX-License-Identifier: MIT */
/* A key for TLS between the two sides of a bench, in a directory that lasts as long as one move. */
#ifndef BENCH_KEYS_H
#define BENCH_KEYS_H

#include "engine/faultline.h"

/* A new directory with keys.psk, random. Remove with bench_keys_remove(). */
char *bench_keys_make(GError **error);
void bench_keys_remove(char *dir); /* takes it; NULL: nothing */

/* All connections of this Faultline are TLS by that key. */
bool bench_keys_use(Faultline *faultline, const char *dir, bool is_source, GError **error);

#endif
