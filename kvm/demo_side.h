/* SPDX-License-Identifier: MIT */
/*
 * One side of the demo: a child process of this program that runs a machine, and its QMP socket.
 * One thread.
 */
#ifndef KVM_DEMO_SIDE_H
#define KVM_DEMO_SIDE_H

#include "kvm/qmp_client.h"

typedef struct DemoSide {
    const char *name; /* "source", "destination" */
    GSubprocess *process;
    GDataInputStream *output;
    QmpClient *client;
    char *socket_path, *verdict_path;
} DemoSide;

/* Starts `faultline run` with these arguments, its files in folder, and connects to it. */
bool demo_side_start(DemoSide *side, const char *name, const char *folder, char **arguments,
                     GError **error);

/* Ends the process, if it runs still, and removes its files. */
void demo_side_end(DemoSide *side);

/* A command without reply. arguments: taken over, may be NULL. */
bool demo_side_do(DemoSide *side, const char *command, JsonObject *arguments, GError **error);

/* query-migrate; never NULL in the node without an error. */
JsonNode *demo_side_query(DemoSide *side, GError **error);

/* The address behind "incoming: listening at" (g_free); waits for it. */
char *demo_side_address(DemoSide *side, GError **error);

/* What the guest says of its data (g_free); NULL when it says nothing yet. */
char *demo_side_verdict(const DemoSide *side);

#endif
