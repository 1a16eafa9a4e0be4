/* SPDX-License-Identifier: MIT */
/*
 * What a migration's connections have to prove: the objects, and what the parameters tls-* make of
 * them. Control thread, except security_connect(), which any may call.
 */
#ifndef ENGINE_SECURITY_H
#define ENGINE_SECURITY_H

#include "engine/options.h"
#include "transport/transport.h"

typedef struct Security {
    GHashTable *objects; /* id -> Object; NULL: there never was one */
    /* of the migration under way, or the last one; all NULL: plain. Under the context's lock */
    TransportCredentials *credentials;
    TransportAuthz *authz;
    char *hostname;
} Security;

/* Of an object; NULL: it is of another type, or there is none of this id. */
TransportCredentials *security_find_credentials(const Security *security, const char *id);
TransportAuthz *security_find_authz(const Security *security, const char *id);
bool security_has_object(const Security *security, const char *id);

/* Whether text parameters, one of which is about to change, go together and name objects. */
bool security_check(const Security *security, const char *const *texts, GError **error);

/* The parameters as they are now, for the migration that begins at uri. Errors: ARGUMENT. */
bool security_take(Faultline *faultline, const char *uri, bool is_listen, GError **error);

/* For a connector or listener just made. */
bool security_connect(Faultline *faultline, TransportConnector *connector, GError **error);
bool security_listen(const Faultline *faultline, TransportListener *listener, GError **error);

void security_clear(Security *security);

#endif
