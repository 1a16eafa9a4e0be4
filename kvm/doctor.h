/* SPDX-License-Identifier: MIT */
/*
 * What the files of `faultline doctor` share: where rows go, and who has which to give. The library
 * gives its own by faultline_check_host(). One thread.
 */
#ifndef KVM_DOCTOR_H
#define KVM_DOCTOR_H

#include "engine/faultline.h"

#include <stdio.h>

/* Prints rows. */
typedef struct DoctorReport {
    FILE *stream;
    bool json;   /* one object a line */
    bool colour; /* of the state; not with json */
} DoctorReport;

/* Prints one row at once. opaque is the DoctorReport. */
void doctor_report_take(void *opaque, const FaultlineCheck *check);

/* Prints the last line. */
void doctor_report_end(DoctorReport *report, bool can_postcopy);

/* Makes a row; the texts need to be valid only during the call. Returns whether it is not closed.
 */
bool doctor_report_add(DoctorReport *report, const char *name, const char *tried,
                       FaultlineCheckState state, const char *text);

/* ---- Who else has rows; each returns whether none is closed ---------------------------------- */

/* KVM, by making machines and running the shipped guest in them; NUMA. is_needed: the guest is to
 * be one of KVM's. */
bool doctor_check_machine(DoctorReport *report, bool is_needed);

/* The machine behind a QMP socket: what it is, whether it waits for a guest, postcopy-ram. Asks,
 * and changes nothing. */
bool doctor_check_peer(DoctorReport *report, const char *socket);

#endif
