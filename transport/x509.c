/* SPDX-License-Identifier: MIT */
/*
 * Certificates: read from the files of a directory, and our own looked at as the peer will, so that
 * what it could only refuse is found out before anybody connects. Any thread.
 */
#include "transport/credentials.h"

#include <string.h>
#include <unistd.h>

#define CA_MAX    64u
#define CHAIN_MAX 16u

/* ---- What is wrong with a certificate ---- */

/* In the order in which they are told: the first that is set explains the others. */
static const struct {
    unsigned bit;
    gnutls_alert_description_t alert;
    const char *reason, *remedy;
} faults[] = {
    {GNUTLS_CERT_REVOKED, GNUTLS_A_CERTIFICATE_REVOKED, "is revoked",
     "use another; ca-crl.pem lists this one"},
    {GNUTLS_CERT_EXPIRED, GNUTLS_A_CERTIFICATE_EXPIRED, "has expired, or one that signed it has",
     "renew it, and see that this host's clock is right"},
    {GNUTLS_CERT_NOT_ACTIVATED, GNUTLS_A_BAD_CERTIFICATE,
     "is not valid yet, or one that signed it is not",
     "see that the clocks of this host and of the one that signed it are right"},
    {GNUTLS_CERT_SIGNER_NOT_FOUND, GNUTLS_A_UNKNOWN_CA, "is not signed by a CA that is known here",
     "have it signed by one of ca-cert.pem, or add its CA to that file"},
    {GNUTLS_CERT_SIGNATURE_FAILURE, GNUTLS_A_UNKNOWN_CA,
     "is not signed by a CA that is known here, only by one of the same name",
     "have it signed by one of ca-cert.pem, or add its CA to that file"},
    {GNUTLS_CERT_SIGNER_NOT_CA, GNUTLS_A_UNKNOWN_CA, "is signed by one that is no CA",
     "have it signed by a certificate made as a CA"},
    {GNUTLS_CERT_UNEXPECTED_OWNER, GNUTLS_A_BAD_CERTIFICATE, "is for another name",
     "connect by a name that it has, or set 'tls-hostname' to one"},
    {GNUTLS_CERT_PURPOSE_MISMATCH, GNUTLS_A_UNSUPPORTED_CERTIFICATE,
     "is not made for this side of TLS",
     "make one with the purpose tls_www_server for a destination, tls_www_client for a source"},
    {GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE, GNUTLS_A_BAD_CERTIFICATE,
     "is signed by a CA that may not sign such", "see the CA's constraints"},
    {GNUTLS_CERT_INSECURE_ALGORITHM, GNUTLS_A_BAD_CERTIFICATE,
     "is signed by an algorithm that is broken", "sign it anew with SHA-256 or better"},
    {GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED, GNUTLS_A_BAD_CERTIFICATE,
     "cannot be checked: ca-crl.pem is out of date", "renew that file"},
};

char *
transport_x509_explain(unsigned status, const char *whom, const char *dir,
                       gnutls_alert_description_t *ret_alert)
{
    if (ret_alert != NULL)
        *ret_alert = GNUTLS_A_BAD_CERTIFICATE;
    for (unsigned i = 0; i < G_N_ELEMENTS(faults); i++)
        if ((status & faults[i].bit) != 0) {
            if (ret_alert != NULL)
                *ret_alert = faults[i].alert;
            bool is_name = faults[i].bit == GNUTLS_CERT_UNEXPECTED_OWNER && whom != NULL;

            return g_strdup_printf("%s%s%s%s: %s (%s has what is trusted here)", faults[i].reason,
                                   is_name ? " than '" : "", is_name ? whom : "",
                                   is_name ? "'" : "", faults[i].remedy, dir);
        }
    return g_strdup_printf("cannot be verified (status 0x%x): make it anew, signed by the CA in %s",
                           status, dir);
}

/* ---- Files ---- */

static bool
read_pem(const char *path, gnutls_datum_t *ret_datum, char **ret_text, GError **error)
{
    g_autoptr(GError) cause = NULL;
    gsize length;

    if (!g_file_get_contents(path, ret_text, &length, &cause))
        return transport_set_credentials_error(
            error, "load certificates: %s: make it, or give the 'dir' that has it", cause->message);
    *ret_datum = (gnutls_datum_t){.data = (unsigned char *)*ret_text, .size = (unsigned)length};
    return true;
}

static bool
refuse_file(const char *path, int code, GError **error)
{
    return transport_set_credentials_error(
        error, "load certificates: %s cannot be used: %s: make it anew, in PEM", path,
        gnutls_strerror(code));
}

/* Returns how many, 0 on an error. */
static unsigned
read_list(const char *path, gnutls_x509_crt_t *list, unsigned greatest, GError **error)
{
    g_autofree char *text = NULL;
    gnutls_datum_t datum;
    unsigned count = greatest;

    if (!read_pem(path, &datum, &text, error))
        return 0;
    int code = gnutls_x509_crt_list_import(list, &count, &datum, GNUTLS_X509_FMT_PEM,
                                           GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    if (code > 0)
        return count;
    refuse_file(path, code < 0 ? code : GNUTLS_E_NO_CERTIFICATE_FOUND, error);
    return 0;
}

static void
free_list(gnutls_x509_crt_t *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        gnutls_x509_crt_deinit(list[i]);
}

/* ---- Our own certificate ---- */

static bool
check_usage(gnutls_x509_crt_t certificate, const char *path, GError **error)
{
    unsigned usage = 0;

    if (gnutls_x509_crt_get_key_usage(certificate, &usage, NULL) < 0 ||
        (usage & GNUTLS_KEY_DIGITAL_SIGNATURE) != 0)
        return true;
    return transport_set_credentials_error(
        error,
        "check certificate %s: its key usage has no digital signature, which TLS 1.3 needs: "
        "make it with signing_key",
        path);
}

static bool
check_chain(gnutls_x509_trust_list_t trust, gnutls_x509_crt_t *chain, unsigned count,
            const TransportCredentials *credentials, const char *path, GError **error)
{
    const char *purpose = credentials->endpoint == TRANSPORT_TLS_SERVER ? GNUTLS_KP_TLS_WWW_SERVER
                                                                        : GNUTLS_KP_TLS_WWW_CLIENT;
    gnutls_typed_vdata_st data[1] = {
        {.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)purpose}};
    unsigned status = 0;
    int code = gnutls_x509_trust_list_verify_crt2(trust, chain, count, data, 1, 0, &status, NULL);

    if (code < 0)
        return refuse_file(path, code, error);
    if (status == 0)
        return check_usage(chain[0], path, error);
    g_autofree char *reason = transport_x509_explain(status, NULL, credentials->dir, NULL);
    return transport_set_credentials_error(error, "check certificate %s: it %s", path, reason);
}

static bool
check_own(const TransportCredentials *credentials, const char *ca_path, const char *path,
          GError **error)
{
    gnutls_x509_crt_t authorities[CA_MAX], chain[CHAIN_MAX];
    unsigned count_authorities = read_list(ca_path, authorities, CA_MAX, error);
    unsigned count = count_authorities != 0 ? read_list(path, chain, CHAIN_MAX, error) : 0;
    gnutls_x509_trust_list_t trust;
    bool is_good = false;

    if (count != 0) {
        gnutls_x509_trust_list_init(&trust, 0);
        gnutls_x509_trust_list_add_cas(trust, authorities, count_authorities, 0);
        is_good = check_chain(trust, chain, count, credentials, path, error);
        gnutls_x509_trust_list_deinit(trust, 0);
    }
    free_list(chain, count);
    free_list(authorities, count_authorities);
    return is_good;
}

/* ---- Loading ---- */

/* A client without a certificate is one, too: the server may not ask for it. */
static bool
load_own(TransportCredentials *credentials, const char *ca_path, bool skips_own, GError **error)
{
    const char *side = credentials->endpoint == TRANSPORT_TLS_SERVER ? "server" : "client";
    g_autofree char *name = g_strdup_printf("%s-cert.pem", side);
    g_autofree char *key_name = g_strdup_printf("%s-key.pem", side);
    g_autofree char *path = g_build_filename(credentials->dir, name, NULL);
    g_autofree char *key_path = g_build_filename(credentials->dir, key_name, NULL);
    int code;

    if (credentials->endpoint == TRANSPORT_TLS_CLIENT && access(path, F_OK) != 0 &&
        access(key_path, F_OK) != 0)
        return true;
    if (access(path, R_OK) != 0 || access(key_path, R_OK) != 0)
        return transport_set_credentials_error(
            error,
            "load certificates: %s and %s cannot both be read: put certificate and key "
            "there, or give the 'dir' that has them",
            path, key_path);
    if (!skips_own && !check_own(credentials, ca_path, path, error))
        return false;
    code = gnutls_certificate_set_x509_key_file(credentials->x509, path, key_path,
                                                GNUTLS_X509_FMT_PEM);
    return code >= 0 || refuse_file(path, code, error);
}

bool
transport_x509_load(TransportCredentials *credentials, bool skips_own, GError **error)
{
    g_autofree char *ca_path = g_build_filename(credentials->dir, "ca-cert.pem", NULL);
    g_autofree char *crl_path = g_build_filename(credentials->dir, "ca-crl.pem", NULL);
    g_autofree char *text = NULL;
    gnutls_datum_t datum;
    int code;

    gnutls_certificate_allocate_credentials(&credentials->x509);
    if (!read_pem(ca_path, &datum, &text, error))
        return false;
    code = gnutls_certificate_set_x509_trust_mem(credentials->x509, &datum, GNUTLS_X509_FMT_PEM);
    if (code <= 0)
        return refuse_file(ca_path, code < 0 ? code : GNUTLS_E_NO_CERTIFICATE_FOUND, error);
    if (access(crl_path, F_OK) == 0) {
        code =
            gnutls_certificate_set_x509_crl_file(credentials->x509, crl_path, GNUTLS_X509_FMT_PEM);
        if (code < 0)
            return refuse_file(crl_path, code, error);
    }
    return load_own(credentials, ca_path, skips_own, error);
}
