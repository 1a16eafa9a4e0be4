/* SPDX-License-Identifier: MIT */
/* Pair tests of a connection that breaks in postcopy and of going on by command; each is a cmocka
 * test whose state is a Scene. */
#ifndef TESTS_PAIR_RESUME_H
#define TESTS_PAIR_RESUME_H

void link_cut_in_postcopy_resumes_at_another_port_threads(void **state);
void link_cut_in_postcopy_resumes_at_another_port_threads_preempt(void **state);
void link_cut_in_postcopy_resumes_at_a_unix_socket_threads_hugetlb(void **state);
void link_cut_in_postcopy_resumes_at_a_unix_socket_kvm(void **state);
void link_cut_in_postcopy_resumes_at_a_unix_socket_kvm_preempt(void **state);
void link_cut_in_postcopy_resumes_at_a_unix_socket_threads_one_gib(void **state);

#endif
