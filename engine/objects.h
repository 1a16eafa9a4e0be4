/* SPDX-License-Identifier: MIT */
/*
 * A chapter of faultline.h, which includes it: objects that parameters name by their id, for TLS,
 * and parameters that are text.
 *
 * With the parameter tls-creds every connection of a migration is TLS, main, urgent and those of a
 * recovery; who connects is the client, who listens the server, as with QEMU, whose names these
 * are:
 *
 *     faultline_add_object_text(f, "tls-creds-x509,id=tls0,dir=/etc/pki/qemu,endpoint=server", &e);
 *     faultline_set_text_parameter(f, "tls-creds", "tls0", &error);
 *     faultline_incoming(f, "tcp:0.0.0.0:4444", &error);
 *
 * A peer that cannot prove who it is costs its own connection and no more: the destination goes on
 * listening, and FAULTLINE_EVENT_REFUSED and FaultlineInfo.refusal tell.
 *
 * Objects are made at once, files are read and checked then; a migration holds what it began with,
 * and a recovery what it was asked for with, so that an object may be removed at any time. Thread:
 * control, for all of this.
 *
 * System calls that TLS adds to faultline.h's lists: recvfrom, sendto (the handshake, on migration
 * and listen), getrandom and futex (all that send or receive).
 */
#ifndef FAULTLINE_OBJECTS_H
#define FAULTLINE_OBJECTS_H

#include <glib.h>
#include <stdbool.h>

typedef struct Faultline Faultline;

/* A property of an object; what is nested in QMP has dots in its name, e.g. rules.0.match. */
typedef struct FaultlineProperty {
    const char *name, *value;
} FaultlineProperty;

/* What an object of a type can be given. */
typedef struct FaultlinePropertyRow {
    const char *name; /* NULL: the end of the list */
    const char *help;
    bool is_switch; /* on or off */
} FaultlinePropertyRow;

typedef struct FaultlineObjectRow {
    const char *type; /* NULL: the end of the table */
    const char *help;
    const FaultlinePropertyRow *properties;
} FaultlineObjectRow;

/* The types there are. */
const FaultlineObjectRow *faultline_object_table(void);

/* Strings are copied. Errors: ARGUMENT for a type, property or value that is not known, an id in
 * use, and files that are missing or cannot work (which, why, and what to do). */
bool faultline_add_object(Faultline *faultline, const char *type, const char *id,
                          const FaultlineProperty *properties, unsigned count, GError **error);

/* The same from TYPE,id=ID,NAME=VALUE,...; a comma in a value is written twice. */
bool faultline_add_object_text(Faultline *faultline, const char *text, GError **error);

/* Errors: ARGUMENT for an id that is not known. */
bool faultline_remove_object(Faultline *faultline, const char *id, GError **error);

/* For rows of type TEXT; "": not set. Holds for the migrations that begin afterwards. Errors:
 * ARGUMENT for an unknown name, an id of no object or of a wrong type, and what does not go with
 * another parameter (both are named). */
bool faultline_set_text_parameter(Faultline *faultline, const char *name, const char *value,
                                  GError **error);

/* "" for an unknown name. Until it is set again. */
const char *faultline_get_text_parameter(const Faultline *faultline, const char *name);

#endif
