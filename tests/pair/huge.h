/* SPDX-License-Identifier: MIT */
/* Pair tests of memory that the kernel backs by 2 MiB pages (shmem THP); state is a Scene. */
#ifndef TESTS_PAIR_HUGE_H
#define TESTS_PAIR_HUGE_H

int huge_setup(void **state);
int huge_teardown(void **state);
void postcopy_of_huge_pages_ends_on_huge_pages(void **state);

#endif
