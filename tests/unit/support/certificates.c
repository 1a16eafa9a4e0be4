/* SPDX-License-Identifier: MIT */
/* Makes certificates by GnuTLS's own calls: see certificates.h. */
#include "tests/unit/support/certificates.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DAY_S 86400

static void
check(int code)
{
    if (code < 0)
        g_error("certificates: %s", gnutls_strerror(code));
}

void
certificates_write(const char *dir, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autoptr(GError) error = NULL;

    if (!g_file_set_contents(path, text, -1, &error))
        g_error("certificates: %s", error->message);
}

void
certificates_drop(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);

    unlink(path);
}

static void
write_datum(const char *dir, const char *side, const char *what, gnutls_datum_t *datum)
{
    g_autofree char *name = g_strdup_printf("%s-%s.pem", side, what);
    g_autofree char *text = g_strndup((const char *)datum->data, datum->size);

    certificates_write(dir, name, text);
    gnutls_free(datum->data);
}

static void
read_datum(const char *dir, const char *side, const char *what, gnutls_datum_t *ret_datum)
{
    g_autofree char *name = g_strdup_printf("%s-%s.pem", side, what);
    g_autofree char *path = g_build_filename(dir, name, NULL);

    check(gnutls_load_file(path, ret_datum));
}

static gnutls_x509_privkey_t
new_key(void)
{
    gnutls_x509_privkey_t key;

    check(gnutls_x509_privkey_init(&key));
    check(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                       GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    return key;
}

static gnutls_x509_crt_t
new_certificate(gnutls_x509_privkey_t key, const char *name, int from_s, int until_s)
{
    static unsigned char serial;
    gnutls_x509_crt_t certificate;
    time_t now = time(NULL);

    serial++;
    check(gnutls_x509_crt_init(&certificate));
    check(gnutls_x509_crt_set_version(certificate, 3));
    check(gnutls_x509_crt_set_serial(certificate, &serial, 1));
    check(gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, name,
                                        (unsigned)strlen(name)));
    check(gnutls_x509_crt_set_activation_time(certificate, now + (from_s ? from_s : -DAY_S)));
    check(gnutls_x509_crt_set_expiration_time(certificate, now + (until_s ? until_s : DAY_S)));
    check(gnutls_x509_crt_set_key(certificate, key));
    return certificate;
}

static void
write_certificate(const char *dir, const char *side, gnutls_x509_crt_t certificate,
                  gnutls_x509_privkey_t key)
{
    gnutls_datum_t datum;

    check(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &datum));
    write_datum(dir, side, "cert", &datum);
    check(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &datum));
    write_datum(dir, side, "key", &datum);
    gnutls_x509_crt_deinit(certificate);
    gnutls_x509_privkey_deinit(key);
}

static void
make_ca(const char *dir)
{
    gnutls_x509_privkey_t key = new_key();
    gnutls_x509_crt_t certificate = new_certificate(key, "test CA", 0, 0);

    check(gnutls_x509_crt_set_basic_constraints(certificate, 1, -1));
    check(
        gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
    check(gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA256, 0));
    write_certificate(dir, "ca", certificate, key);
}

static void
load_ca(const char *dir, gnutls_x509_crt_t *ret_certificate, gnutls_x509_privkey_t *ret_key)
{
    gnutls_datum_t datum;

    check(gnutls_x509_crt_init(ret_certificate));
    read_datum(dir, "ca", "cert", &datum);
    check(gnutls_x509_crt_import(*ret_certificate, &datum, GNUTLS_X509_FMT_PEM));
    gnutls_free(datum.data);
    check(gnutls_x509_privkey_init(ret_key));
    read_datum(dir, "ca", "key", &datum);
    check(gnutls_x509_privkey_import(*ret_key, &datum, GNUTLS_X509_FMT_PEM));
    gnutls_free(datum.data);
}

static void
set_owner(gnutls_x509_crt_t certificate, const CertificateWish *wish)
{
    static const unsigned char loopback[] = {127, 0, 0, 1};
    const char *dns = wish->dns ? wish->dns : "localhost";

    check(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, dns,
                                               (unsigned)strlen(dns), GNUTLS_FSAN_SET));
    if (!wish->dns)
        check(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, loopback,
                                                   sizeof loopback, GNUTLS_FSAN_APPEND));
}

void
certificates_replace(const char *dir, const char *side, const CertificateWish *wish)
{
    bool is_server = strcmp(side, "server") == 0;
    const char *preset = is_server ? "localhost" : "source";
    gnutls_x509_privkey_t ca_key, key = new_key();
    gnutls_x509_crt_t ca, certificate = new_certificate(key, wish->name ? wish->name : preset,
                                                        wish->from_s, wish->until_s);

    load_ca(dir, &ca, &ca_key);
    if (is_server)
        set_owner(certificate, wish);
    check(gnutls_x509_crt_set_key_purpose_oid(
        certificate,
        is_server != wish->has_wrong_purpose ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT,
        0));
    check(gnutls_x509_crt_set_key_usage(certificate, wish->cannot_sign
                                                         ? GNUTLS_KEY_KEY_AGREEMENT
                                                         : GNUTLS_KEY_DIGITAL_SIGNATURE |
                                                               GNUTLS_KEY_KEY_ENCIPHERMENT));
    check(gnutls_x509_crt_sign2(certificate, ca, ca_key, GNUTLS_DIG_SHA256, 0));
    gnutls_x509_crt_deinit(ca);
    gnutls_x509_privkey_deinit(ca_key);
    write_certificate(dir, side, certificate, key);
}

void
certificates_revoke(const char *dir, const char *side)
{
    gnutls_x509_crt_t ca, certificate;
    gnutls_x509_privkey_t ca_key;
    gnutls_x509_crl_t list;
    gnutls_datum_t datum;
    time_t now = time(NULL);

    load_ca(dir, &ca, &ca_key);
    check(gnutls_x509_crt_init(&certificate));
    read_datum(dir, side, "cert", &datum);
    check(gnutls_x509_crt_import(certificate, &datum, GNUTLS_X509_FMT_PEM));
    gnutls_free(datum.data);
    check(gnutls_x509_crl_init(&list));
    check(gnutls_x509_crl_set_version(list, 2));
    check(gnutls_x509_crl_set_this_update(list, now - DAY_S));
    check(gnutls_x509_crl_set_next_update(list, now + DAY_S));
    check(gnutls_x509_crl_set_number(list, "\1", 1));
    check(gnutls_x509_crl_set_crt(list, certificate, now - 1));
    check(gnutls_x509_crl_sign2(list, ca, ca_key, GNUTLS_DIG_SHA256, 0));
    check(gnutls_x509_crl_export2(list, GNUTLS_X509_FMT_PEM, &datum));
    write_datum(dir, "ca", "crl", &datum);
    gnutls_x509_crl_deinit(list);
    gnutls_x509_crt_deinit(certificate);
    gnutls_x509_crt_deinit(ca);
    gnutls_x509_privkey_deinit(ca_key);
}

char *
certificates_make(void)
{
    g_autoptr(GError) error = NULL;
    char *dir = g_dir_make_tmp("faultline-tls-XXXXXX", &error);

    if (!dir)
        g_error("certificates: %s", error->message);
    make_ca(dir);
    certificates_replace(dir, "server", &(CertificateWish){0});
    certificates_replace(dir, "client", &(CertificateWish){0});
    certificates_write(dir, "keys.psk",
                       "# users of the tests\n"
                       "qemu:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
                       "bob:ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100\n");
    return dir;
}

void
certificates_remove(char *dir)
{
    GDir *list = dir ? g_dir_open(dir, 0, NULL) : NULL;
    const char *name;

    while (list && (name = g_dir_read_name(list)))
        certificates_drop(dir, name);
    if (list)
        g_dir_close(list);
    if (dir)
        rmdir(dir);
    g_free(dir);
}
