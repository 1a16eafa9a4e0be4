/* SPDX-License-Identifier: MIT */
/*
 * Authorizations: which names may come in. Any thread; nothing changes once it is made. Whose name
 * it is, and that it is proved, is session.c's.
 */
#include "transport/transport.h"

#include <string.h>

typedef struct {
    char *match;
    GPatternSpec *pattern; /* NULL: exactly match */
    bool is_allowed;
} Rule;

struct TransportAuthz {
    unsigned count_references;
    unsigned count_rules;
    bool allows_others;
    Rule rules[];
};

TransportAuthz *
transport_authz_new(const TransportAuthzRule *rules, unsigned count, bool allows_others)
{
    TransportAuthz *authz = g_malloc0(sizeof *authz + count * sizeof authz->rules[0]);

    authz->count_references = 1;
    authz->count_rules = count;
    authz->allows_others = allows_others;
    for (unsigned i = 0; i < count; i++)
        authz->rules[i] =
            (Rule){.match = g_strdup(rules[i].match),
                   .pattern = rules[i].is_pattern ? g_pattern_spec_new(rules[i].match) : NULL,
                   .is_allowed = rules[i].is_allowed};
    return authz;
}

TransportAuthz *
transport_authz_ref(TransportAuthz *authz)
{
    __atomic_add_fetch(&authz->count_references, 1, __ATOMIC_RELAXED);
    return authz;
}

void
transport_authz_unref(TransportAuthz *authz)
{
    /* Each release pairs with the acquire of the last one. */
    if (authz == NULL || __atomic_sub_fetch(&authz->count_references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    for (unsigned i = 0; i < authz->count_rules; i++) {
        g_free(authz->rules[i].match);
        g_clear_pointer(&authz->rules[i].pattern, g_pattern_spec_free);
    }
    g_free(authz);
}

bool
transport_authz_allows(const TransportAuthz *authz, const char *name)
{
    for (unsigned i = 0; i < authz->count_rules; i++) {
        const Rule *rule = &authz->rules[i];

        if (rule->pattern != NULL ? g_pattern_spec_match_string(rule->pattern, name)
                                  : strcmp(rule->match, name) == 0)
            return rule->is_allowed;
    }
    return authz->allows_others;
}
