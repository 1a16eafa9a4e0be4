/* SPDX-License-Identifier: MIT */
/*
 * Objects: the table of types, made from properties, kept by id, removed. Control thread. What they
 * hold is transport/'s and never changes; which of them a migration uses is security.c's.
 */
#include "engine/context.h"
#include "engine/error.h"

#include <string.h>

typedef struct Object {
    TransportCredentials *credentials; /* one of both */
    TransportAuthz *authz;
} Object;

/* What an object is made of, all names known. */
typedef struct Wish {
    const char *id;
    const FaultlineProperty *properties;
    unsigned count;
} Wish;

static bool refuse(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static bool
refuse(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, text);
    return false;
}

static void
object_free(gpointer opaque)
{
    Object *object = opaque;

    transport_credentials_unref(object->credentials);
    transport_authz_unref(object->authz);
    g_free(object);
}

/* ---- Properties ------------------------------------------------------------------------------ */

static const char *
property(const Wish *wish, const char *name)
{
    for (unsigned i = 0; i < wish->count; i++)
        if (g_str_equal(wish->properties[i].name, name))
            return wish->properties[i].value;
    return NULL;
}

static bool
parse_switch(const char *text, bool *ret_on)
{
    *ret_on = g_str_equal(text, "on") || g_str_equal(text, "yes") || g_str_equal(text, "true");
    return *ret_on || g_str_equal(text, "off") || g_str_equal(text, "no") ||
           g_str_equal(text, "false");
}

/* Leaves *ret_on alone when it is not given; its value was checked. */
static void
take_switch(const Wish *wish, const char *name, bool *ret_on)
{
    const char *text = property(wish, name);

    if (text)
        parse_switch(text, ret_on);
}

/* One of two words; *ret_is_first is left alone when it is not given. */
static bool
take_choice(const Wish *wish, const char *name, const char *first, const char *second,
            bool *ret_is_first, GError **error)
{
    const char *text = property(wish, name);

    if (!text)
        return true;
    *ret_is_first = g_str_equal(text, first);
    return *ret_is_first || g_str_equal(text, second) ||
           refuse(error, "add object '%s': '%s' takes '%s' or '%s', not '%s'", wish->id, name,
                  first, second, text);
}

/* ---- Credentials ----------------------------------------------------------------------------- */

static bool
make_credentials(const Wish *wish, TransportTlsOptions *options, Object *object, GError **error)
{
    bool is_client = true;

    options->dir = property(wish, "dir");
    options->priority = property(wish, "priority");
    if (!options->dir)
        return refuse(error, "add object '%s': 'dir' is missing; give the directory of its files",
                      wish->id);
    if (!take_choice(wish, "endpoint", "client", "server", &is_client, error))
        return false;
    options->endpoint = is_client ? TRANSPORT_TLS_CLIENT : TRANSPORT_TLS_SERVER;
    object->credentials = transport_credentials_new(options, error);
    if (object->credentials)
        return true;
    g_prefix_error(error, "add object '%s': ", wish->id);
    return error_translate(error);
}

static bool
make_x509(const Wish *wish, Object *object, GError **error)
{
    bool verifies = true, looks = true;

    take_switch(wish, "verify-peer", &verifies);
    take_switch(wish, "sanity-check", &looks);
    TransportTlsOptions options = {
        .kind = TRANSPORT_TLS_X509, .skips_peer = !verifies, .skips_own = !looks};
    return make_credentials(wish, &options, object, error);
}

static bool
make_psk(const Wish *wish, Object *object, GError **error)
{
    TransportTlsOptions options = {.kind = TRANSPORT_TLS_PSK,
                                   .username = property(wish, "username")};

    return make_credentials(wish, &options, object, error);
}

/* ---- Authorizations -------------------------------------------------------------------------- */

static bool
make_authz_simple(const Wish *wish, Object *object, GError **error)
{
    TransportAuthzRule rule = {.match = property(wish, "identity"), .is_allowed = true};

    if (!rule.match)
        return refuse(error,
                      "add object '%s': 'identity' is missing; give the distinguished name of the "
                      "certificate that may come in, e.g. CN=host.example",
                      wish->id);
    object->authz = transport_authz_new(&rule, 1, false);
    return true;
}

static bool
take_rule(const Wish *wish, unsigned index, TransportAuthzRule *rule, GError **error)
{
    g_autofree char *match = g_strdup_printf("rules.%u.match", index);
    g_autofree char *policy = g_strdup_printf("rules.%u.policy", index);
    g_autofree char *format = g_strdup_printf("rules.%u.format", index);
    bool is_exact = true, is_denied = true;

    rule->match = property(wish, match);
    if (!property(wish, policy))
        return refuse(error, "add object '%s': '%s' is missing; give 'allow' or 'deny'", wish->id,
                      policy);
    if (!take_choice(wish, policy, "deny", "allow", &is_denied, error) ||
        !take_choice(wish, format, "exact", "glob", &is_exact, error))
        return false;
    rule->is_allowed = !is_denied;
    rule->is_pattern = !is_exact;
    return true;
}

static bool
make_authz_list(const Wish *wish, Object *object, GError **error)
{
    g_autoptr(GArray) rules = g_array_new(FALSE, TRUE, sizeof(TransportAuthzRule));
    bool is_denied = true;

    if (!take_choice(wish, "policy", "deny", "allow", &is_denied, error))
        return false;
    for (unsigned i = 0;; i++) {
        g_autofree char *match = g_strdup_printf("rules.%u.match", i);
        TransportAuthzRule rule;

        if (!property(wish, match))
            break;
        if (!take_rule(wish, i, &rule, error))
            return false;
        g_array_append_val(rules, rule);
    }
    object->authz =
        transport_authz_new((const TransportAuthzRule *)rules->data, rules->len, !is_denied);
    return true;
}

/* ---- The table ------------------------------------------------------------------------------- */

#define DIR_ROW(files)                                                                             \
    {                                                                                              \
        "dir", "directory with " files, false                                                      \
    }
#define ENDPOINT_ROW                                                                               \
    {                                                                                              \
        "endpoint", "client: at a source (preset); server: at a destination", false                \
    }
#define PRIORITY_ROW                                                                               \
    {                                                                                              \
        "priority", "GnuTLS's priority string", false                                              \
    }

static const FaultlinePropertyRow x509_properties[] = {
    DIR_ROW("ca-cert.pem, ca-crl.pem if wanted, and {server,client}-{cert,key}.pem"),
    ENDPOINT_ROW,
    {"verify-peer", "the peer must show a certificate that the CA signed (preset: on)", true},
    {"sanity-check", "look at the own certificate, too, when it is loaded (preset: on)", true},
    PRIORITY_ROW,
    {NULL, NULL, false}};

static const FaultlinePropertyRow psk_properties[] = {
    DIR_ROW("keys.psk, lines of USER:HEXKEY"),
    ENDPOINT_ROW,
    {"username", "client: who it says it is (preset: qemu)", false},
    PRIORITY_ROW,
    {NULL, NULL, false}};

static const FaultlinePropertyRow simple_properties[] = {
    {"identity", "distinguished name of the one certificate that may come in", false},
    {NULL, NULL, false}};

static const FaultlinePropertyRow list_properties[] = {
    {"policy", "deny (preset) or allow, for whom no rule matches", false},
    {"rules.N.match", "name or, with format glob, pattern", false},
    {"rules.N.policy", "allow or deny", false},
    {"rules.N.format", "exact (preset) or glob", false},
    {NULL, NULL, false}};

static const FaultlineObjectRow rows[] = {
    {"tls-creds-x509", "certificates for TLS", x509_properties},
    {"tls-creds-psk", "keys for TLS that both sides have", psk_properties},
    {"authz-simple", "the one certificate that may come in", simple_properties},
    {"authz-list", "certificates that may or may not come in", list_properties},
    {NULL, NULL, NULL}};

static bool (*const makers[])(const Wish *, Object *, GError **) = {
    make_x509, make_psk, make_authz_simple, make_authz_list};
G_STATIC_ASSERT(G_N_ELEMENTS(rows) == G_N_ELEMENTS(makers) + 1);

const FaultlineObjectRow *
faultline_object_table(void)
{
    return rows;
}

static int
find_type(const char *type)
{
    for (int i = 0; rows[i].type; i++)
        if (g_str_equal(rows[i].type, type))
            return i;
    return -1;
}

/* Whether name is that of a row, in which N stands for a number. */
static bool
name_matches(const char *row, const char *name)
{
    const char *number = strstr(row, ".N.");
    size_t length = number ? (size_t)(number - row) + 1 : 0;

    if (!number)
        return g_str_equal(row, name);
    if (strncmp(row, name, length) != 0 || !g_ascii_isdigit(name[length]))
        return false;
    while (g_ascii_isdigit(name[length]))
        length++;
    return g_str_equal(name + length, number + 2);
}

static bool
check_property(const FaultlineObjectRow *type, const char *id, const FaultlineProperty *given,
               GError **error)
{
    g_autoptr(GString) known = g_string_new(NULL);
    bool on;

    for (const FaultlinePropertyRow *row = type->properties; row->name; row++) {
        if (name_matches(row->name, given->name))
            return !row->is_switch || parse_switch(given->value, &on) ||
                   refuse(error, "add object '%s': '%s' takes on or off, not '%s'", id, given->name,
                          given->value);
        g_string_append_printf(known, "%s%s", known->len ? ", " : "", row->name);
    }
    return refuse(error, "add object '%s': %s has no property '%s'; it has %s", id, type->type,
                  given->name, known->str);
}

static bool
id_is_good(const char *id)
{
    if (!g_ascii_isalpha(id[0]))
        return false;
    for (const char *at = id; *at; at++)
        if (!g_ascii_isalnum(*at) && !strchr("-._", *at))
            return false;
    return true;
}

bool
faultline_add_object(Faultline *faultline, const char *type, const char *id,
                     const FaultlineProperty *properties, unsigned count, GError **error)
{
    Security *security = &faultline->security;
    int index = find_type(type);
    Wish wish = {id, properties, count};

    if (index < 0)
        return refuse(error,
                      "add object '%s': there is no type '%s'; there are tls-creds-x509, "
                      "tls-creds-psk, authz-simple and authz-list",
                      id, type);
    if (!id_is_good(id))
        return refuse(error,
                      "add object: '%s' is no id; give letters, digits, '-', '.' and '_', a "
                      "letter first",
                      id);
    if (security_has_object(security, id))
        return refuse(error, "add object '%s': there is one of this id; remove it first", id);
    for (unsigned i = 0; i < count; i++)
        if (!check_property(&rows[index], id, &properties[i], error))
            return false;
    Object *object = g_new0(Object, 1);
    if (!makers[index](&wish, object, error)) {
        object_free(object);
        return false;
    }
    if (!security->objects)
        security->objects = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, object_free);
    g_hash_table_insert(security->objects, g_strdup(id), object);
    return true;
}

bool
faultline_remove_object(Faultline *faultline, const char *id, GError **error)
{
    GHashTable *objects = faultline->security.objects;

    if (objects && g_hash_table_remove(objects, id))
        return true;
    return refuse(error, "remove object: there is none with id '%s'", id);
}

/* ---- From text ------------------------------------------------------------------------------- */

/* Cuts at single commas and takes one of two; modifies text. NULL: nothing is left. */
static char *
next_word(char **text)
{
    char *word = *text, *to = word, *from = word;

    if (!word || !*word)
        return NULL;
    for (; *from && !(*from == ',' && from[1] != ','); from++) {
        if (*from == ',')
            from++;
        *to++ = *from;
    }
    *text = *from ? from + 1 : NULL;
    *to = '\0';
    return word;
}

bool
faultline_add_object_text(Faultline *faultline, const char *text, GError **error)
{
    g_autoptr(GArray) properties = g_array_new(FALSE, FALSE, sizeof(FaultlineProperty));
    g_autofree char *copy = g_strdup(text);
    char *rest = copy, *word;
    const char *type = next_word(&rest), *id = NULL;

    while ((word = next_word(&rest))) {
        char *equals = strchr(word, '=');

        if (!equals || equals == word)
            return refuse(error, "add object %s: '%s' is not NAME=VALUE", text, word);
        *equals = '\0';
        FaultlineProperty given = {word, equals + 1};
        if (g_str_equal(word, "id"))
            id = given.value;
        else
            g_array_append_val(properties, given);
    }
    if (!type || !id)
        return refuse(error, "add object %s: give TYPE,id=ID,NAME=VALUE,...", text);
    return faultline_add_object(faultline, type, id, (const FaultlineProperty *)properties->data,
                                properties->len, error);
}

/* ---- Finding --------------------------------------------------------------------------------- */

static const Object *
find(const Security *security, const char *id)
{
    return security->objects && id ? g_hash_table_lookup(security->objects, id) : NULL;
}

bool
security_has_object(const Security *security, const char *id)
{
    return find(security, id) != NULL;
}

TransportCredentials *
security_find_credentials(const Security *security, const char *id)
{
    const Object *object = find(security, id);

    return object ? object->credentials : NULL;
}

TransportAuthz *
security_find_authz(const Security *security, const char *id)
{
    const Object *object = find(security, id);

    return object ? object->authz : NULL;
}
