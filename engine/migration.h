/* SPDX-License-Identifier: MIT */
/* Starting and ending a migration in either direction; control thread. */
#ifndef ENGINE_MIGRATION_H
#define ENGINE_MIGRATION_H

#include "engine/context.h"

/* Stops the roles of whatever migration there is, joins them and frees both sides' state. */
void migration_end(Faultline *faultline);

/* A source that sleeps looks at its options again. */
void migration_wake(Faultline *faultline);

/* Whether uri can be as many connections as the capabilities need. Errors: ARGUMENT. */
bool migration_check_connections(const Faultline *faultline, const char *uri, GError **error);

#endif
