/* SPDX-License-Identifier: MIT */
/*
 * The error domain of the library, and the one place where errors of the folders below and of the
 * guest's callbacks become its own. Stateless, so every thread may use it; the codes and what a
 * caller does about each are described in faultline.h.
 */
#include "engine/error.h"
#include "transport/transport.h"
#include "uffd/uffd.h"

GQuark
faultline_error_quark(void)
{
    return g_quark_from_static_string("faultline-error-quark");
}

static FaultlineError
code_of(const GError *cause)
{
    if (g_error_matches(cause, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED) ||
        g_error_matches(cause, TRANSPORT_ERROR, TRANSPORT_ERROR_UNSUPPORTED))
        return FAULTLINE_ERROR_UNSUPPORTED;
    if (g_error_matches(cause, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS) ||
        g_error_matches(cause, TRANSPORT_ERROR, TRANSPORT_ERROR_CREDENTIALS))
        return FAULTLINE_ERROR_ARGUMENT;
    if (g_error_matches(cause, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK))
        return FAULTLINE_ERROR_LINK;
    return FAULTLINE_ERROR_HOST;
}

bool
error_translate(GError **error)
{
    GError *cause = error ? *error : NULL;

    if (!cause || cause->domain == FAULTLINE_ERROR)
        return false;
    *error = g_error_new_literal(FAULTLINE_ERROR, code_of(cause), cause->message);
    g_error_free(cause);
    return false;
}
