/* SPDX-License-Identifier: MIT */
/*
 * Credentials: made, shared and let go of; and the keys of PSK. Any thread; nothing changes once it
 * is made. Certificates are left to x509.c, what is done with all this to session.c.
 */
#include "transport/credentials.h"
#include "transport/address.h"

#include <string.h>

#define DEFAULT_USER "qemu"

/* Of what GnuTLS takes by itself a PSK session can use nothing without the key exchanges. Its keys
 * go with SHA-256, so of TLS 1.3 with no AES-256; and ChaCha20, which GnuTLS would take then, costs
 * fifteen times as much as AES-128 on a CPU that runs virtual machines: it comes last. */
#define PRIORITY     "NORMAL:-CHACHA20-POLY1305:+CHACHA20-POLY1305"
#define PRIORITY_PSK PRIORITY ":+ECDHE-PSK:+DHE-PSK:+PSK"

bool
transport_set_credentials_error(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, TRANSPORT_ERROR, TRANSPORT_ERROR_CREDENTIALS, text);
    return false;
}

/* ---- Keys of PSK ---- */

static int
hex_digit(char digit)
{
    return g_ascii_xdigit_value(digit);
}

/* NULL: not an even number of hexadecimal digits, at least one pair. */
static GBytes *
parse_key(const char *text)
{
    size_t length = strlen(text) / 2;

    if (length == 0 || strlen(text) % 2 != 0)
        return NULL;
    g_autofree uint8_t *key = g_malloc(length);
    for (size_t i = 0; i < length; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return NULL;
        key[i] = (uint8_t)(high << 4 | low);
    }
    return g_bytes_new_take(g_steal_pointer(&key), length);
}

static bool
parse_line(GHashTable *keys, char *line, const char *path, unsigned number, GError **error)
{
    char *colon = strchr(line, ':');

    g_strchomp(line);
    if (line[0] == '\0' || line[0] == '#')
        return true;
    GBytes *key = colon != NULL && colon != line ? parse_key(colon + 1) : NULL;
    if (key == NULL)
        return transport_set_credentials_error(
            error,
            "load keys: line %u of %s is not USER:KEY with the key in hexadecimal: correct it",
            number, path);
    *colon = '\0';
    g_hash_table_insert(keys, g_strdup(line), key);
    return true;
}

static GHashTable *
read_keys(const char *dir, GError **error)
{
    g_autoptr(GHashTable) keys =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
    g_autofree char *path = g_build_filename(dir, "keys.psk", NULL);
    g_autoptr(GError) cause = NULL;
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, &cause)) {
        transport_set_credentials_error(
            error, "load keys: %s: make it with lines USER:KEY, the key in hexadecimal",
            cause->message);
        return NULL;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i] != NULL; i++)
        if (!parse_line(keys, lines[i], path, i + 1, error))
            return NULL;
    return g_steal_pointer(&keys);
}

GBytes *
transport_psk_find(const TransportCredentials *credentials, const char *user)
{
    return g_hash_table_lookup(credentials->keys, user);
}

static bool
load_psk_client(TransportCredentials *credentials, GHashTable *keys, const char *user,
                GError **error)
{
    GBytes *key = g_hash_table_lookup(keys, user);

    if (key == NULL)
        return transport_set_credentials_error(
            error,
            "load keys: %s/keys.psk has no key of user '%s': add one, or give the name it has as "
            "username",
            credentials->dir, user);
    gnutls_datum_t datum = {0};
    gsize size;
    datum.data = (unsigned char *)g_bytes_get_data(key, &size);
    datum.size = (unsigned)size;
    gnutls_psk_allocate_client_credentials(&credentials->psk_client);
    gnutls_psk_set_client_credentials(credentials->psk_client, user, &datum, GNUTLS_PSK_KEY_RAW);
    return true;
}

static bool
load_psk(TransportCredentials *credentials, const char *username, GError **error)
{
    g_autoptr(GHashTable) keys = read_keys(credentials->dir, error);

    if (keys == NULL)
        return false;
    if (credentials->endpoint == TRANSPORT_TLS_CLIENT)
        return load_psk_client(credentials, keys, username != NULL ? username : DEFAULT_USER,
                               error);
    if (username != NULL)
        return transport_set_credentials_error(
            error,
            "load keys: 'username' does not go with 'endpoint' server: who connects says who "
            "he is; leave it out");
    gnutls_psk_allocate_server_credentials(&credentials->psk_server);
    gnutls_psk_set_server_credentials_function(credentials->psk_server, transport_session_find_key);
    credentials->keys = g_steal_pointer(&keys);
    return true;
}

/* ---- Life ---- */

static bool
set_priority(TransportCredentials *credentials, const char *priority, GError **error)
{
    const char *preset = credentials->kind == TRANSPORT_TLS_PSK ? PRIORITY_PSK : PRIORITY;
    const char *position = NULL;

    if (gnutls_priority_init(&credentials->priority, priority != NULL ? priority : preset,
                             &position) == GNUTLS_E_SUCCESS)
        return true;
    return transport_set_credentials_error(
        error,
        "load credentials: GnuTLS does not know the priority '%s' from '%s' on: see "
        "gnutls-cli --priority-list, or leave it out",
        priority, position);
}

TransportCredentials *
transport_credentials_new(const TransportTlsOptions *options, GError **error)
{
    g_autoptr(TransportCredentials) credentials = g_new0(TransportCredentials, 1);

    credentials->count_references = 1;
    credentials->kind = options->kind;
    credentials->endpoint = options->endpoint;
    credentials->verify_peer = options->kind == TRANSPORT_TLS_X509 && !options->skips_peer;
    credentials->dir = g_strdup(options->dir);
    if (!set_priority(credentials, options->priority, error))
        return NULL;
    if (options->kind == TRANSPORT_TLS_PSK
            ? !load_psk(credentials, options->username, error)
            : !transport_x509_load(credentials, options->skips_own, error))
        return NULL;
    return g_steal_pointer(&credentials);
}

TransportCredentials *
transport_credentials_ref(TransportCredentials *credentials)
{
    __atomic_add_fetch(&credentials->count_references, 1, __ATOMIC_RELAXED);
    return credentials;
}

void
transport_credentials_unref(TransportCredentials *credentials)
{
    /* Each release pairs with the acquire of the last one. */
    if (credentials == NULL ||
        __atomic_sub_fetch(&credentials->count_references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    if (credentials->x509 != NULL)
        gnutls_certificate_free_credentials(credentials->x509);
    if (credentials->psk_client != NULL)
        gnutls_psk_free_client_credentials(credentials->psk_client);
    if (credentials->psk_server != NULL)
        gnutls_psk_free_server_credentials(credentials->psk_server);
    if (credentials->priority != NULL)
        gnutls_priority_deinit(credentials->priority);
    g_clear_pointer(&credentials->keys, g_hash_table_unref);
    g_free(credentials->dir);
    g_free(credentials);
}

TransportTlsKind
transport_credentials_kind(const TransportCredentials *credentials)
{
    return credentials->kind;
}

TransportTlsRole
transport_credentials_endpoint(const TransportCredentials *credentials)
{
    return credentials->endpoint;
}

bool
transport_credentials_verify_peer(const TransportCredentials *credentials)
{
    return credentials->verify_peer;
}

/* ---- What goes together ---- */

static bool
check_hostname(const char *uri, const TransportCredentials *credentials, const char *hostname,
               GError **error)
{
    g_autoptr(TransportAddress) address = NULL;

    if (!credentials->verify_peer || (hostname != NULL && hostname[0] != '\0'))
        return true;
    address = transport_address_new(uri, false, error);
    if (address == NULL)
        return false;
    if (address->kind == TRANSPORT_ADDRESS_TCP)
        return true;
    return transport_set_credentials_error(
        error,
        "TLS to %s: No hostname for certificate validation: the address has none, and the "
        "destination's certificate must be checked for one: set 'tls-hostname' to a name it has",
        uri);
}

bool
transport_check_tls(const char *uri, bool is_listen, const TransportCredentials *credentials,
                    const char *hostname, const TransportAuthz *authz, GError **error)
{
    TransportTlsRole wanted = is_listen ? TRANSPORT_TLS_SERVER : TRANSPORT_TLS_CLIENT;

    if (credentials->endpoint != wanted)
        return transport_set_credentials_error(
            error,
            "TLS %s %s: these credentials have 'endpoint' %s, and who %s is the %s: make some with "
            "'endpoint' %s",
            is_listen ? "at" : "to", uri, is_listen ? "client" : "server",
            is_listen ? "listens" : "connects", is_listen ? "server" : "client",
            is_listen ? "server" : "client");
    if (!is_listen)
        return check_hostname(uri, credentials, hostname, error);
    if (authz != NULL && !credentials->verify_peer)
        return transport_set_credentials_error(
            error,
            "TLS at %s: 'tls-authz' needs the source's certificate, and these 'tls-creds' %s: use "
            "tls-creds-x509 with verify-peer on, or unset 'tls-authz'",
            uri, credentials->kind == TRANSPORT_TLS_PSK ? "are PSK" : "have verify-peer off");
    return true;
}
