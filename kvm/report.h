/* SPDX-License-Identifier: MIT */
/*
 * What the guest says of its own data: reads the serial output line by line and keeps the last
 * verdict. Lines of the shipped guest: "ready", "ok CHECKS", "BAD page ...". A bad one stays.
 *
 * Threads: report_byte on vCPU threads, one at a time (the serial port's lock); report_verdict on
 * the main thread.
 */
#ifndef KVM_REPORT_H
#define KVM_REPORT_H

#include <glib.h>
#include <pthread.h>

#define REPORT_BYTES_MAX 160

typedef struct Report {
    pthread_mutex_t lock;
    char line[REPORT_BYTES_MAX]; /* so far, ended by 0 */
    unsigned length;
    char verdict[REPORT_BYTES_MAX + 16]; /* "" before the first */
    char shown[REPORT_BYTES_MAX + 16];   /* main thread */
} Report;

void report_init(Report *report);
void report_clear(Report *report);
void report_byte(Report *report, char byte);
/* NULL before the guest said anything. Valid until the next call. */
const char *report_verdict(Report *report);

#endif
