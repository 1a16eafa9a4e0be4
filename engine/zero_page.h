/* SPDX-License-Identifier: MIT */
/* Whether a page holds nothing but zeros: such a page travels as one record without data. */
#ifndef ENGINE_ZERO_PAGE_H
#define ENGINE_ZERO_PAGE_H

#include <stdbool.h>
#include <stddef.h>

/* bytes: aligned to 8; length: a multiple of 256. Thread: any. */
bool zero_page_check(const void *bytes, size_t length_bytes);

#endif
