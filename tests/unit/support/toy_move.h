/* SPDX-License-Identifier: MIT */
/* Two toys in one process and a link between them: a guest moves from one to the other. Used by the
 * test's own thread. */
#ifndef TESTS_UNIT_SUPPORT_TOY_MOVE_H
#define TESTS_UNIT_SUPPORT_TOY_MOVE_H

#include "tests/unit/support/toy.h"

typedef struct ToyMove {
    Toy *from, *to;
    ToyLink link;
} ToyMove;

/* Both toys, the source's memory filled. */
void toy_move_begin(ToyMove *move, const ToyKind *kind, ToyLinkKind link);
/* Capabilities, separated by spaces, on both sides; "-name" switches one off. */
void toy_move_set(ToyMove *move, const char *capabilities);
/* Starts both sides. */
void toy_move_start(ToyMove *move);
/* The source's guest stands, the destination's runs, and is right. Leaves it standing. */
void toy_move_expect_moved(ToyMove *move);
/* The destination's has nothing, the source's runs (or stands, if it did), and is right. */
void toy_move_expect_kept(ToyMove *move, bool ran);
void toy_move_end(ToyMove *move);

#endif
