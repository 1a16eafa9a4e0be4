/* SPDX-License-Identifier: MIT */
/*
 * Certificates and keys for tests of TLS, made on the spot in directories of their own, as
 * tls-creds-x509 and tls-creds-psk want them. All functions: any one thread; they fail the program.
 */
#ifndef TESTS_UNIT_SUPPORT_CERTIFICATES_H
#define TESTS_UNIT_SUPPORT_CERTIFICATES_H

#include <glib.h>
#include <stdbool.h>

/* How a certificate differs from a good one; all zero: not at all. */
typedef struct CertificateWish {
    const char *name;    /* NULL: "localhost" for a server, "source" for a client */
    const char *dns;     /* of a server, NULL: "localhost", with 127.0.0.1 */
    int from_s, until_s; /* of its life, from now on; both 0: a day around now */
    bool has_wrong_purpose;
    bool cannot_sign;
} CertificateWish;

/* A new directory with ca-cert.pem, server-*.pem, client-*.pem and keys.psk (users qemu and bob).
 * Free with certificates_remove(). */
char *certificates_make(void);

/* Replaces SIDE-cert.pem and SIDE-key.pem (server, client) in dir, signed by the CA there. */
void certificates_replace(const char *dir, const char *side, const CertificateWish *wish);

/* Lists SIDE-cert.pem in ca-crl.pem. */
void certificates_revoke(const char *dir, const char *side);

void certificates_write(const char *dir, const char *name, const char *text);
void certificates_drop(const char *dir, const char *name);
/* Takes dir. */
void certificates_remove(char *dir);

#endif
