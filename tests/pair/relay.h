/* SPDX-License-Identifier: MIT */
/* A TCP relay between two machines, so that a test can cut all their connections at once, or change
 * bits on the way. */
#ifndef TESTS_PAIR_RELAY_H
#define TESTS_PAIR_RELAY_H

#include <glib.h>

typedef struct Relay Relay;

/* Listens on a port of 127.0.0.1 and passes every connection on to uri ("tcp:127.0.0.1:PORT").
 * Its threads end with the connections. */
Relay *relay_new(const char *uri);

/* Where it listens, as a URI; owned by the relay. */
const char *relay_uri(const Relay *relay);

/* From now on one bit of each `every` bytes towards uri changes, on each connection; 0: none. */
void relay_damage(Relay *relay, guint every);
/* How many have. */
guint relay_count_damaged(Relay *relay);

/* Ends all connections, in both directions; later ones are refused. */
void relay_cut(Relay *relay);
/* From now on the connections that there are pass nothing on, and their ends are not passed on
 * either: nobody is told. Later ones work. */
void relay_hang(Relay *relay);
/* From now on nothing that comes from uri is passed on by the connections that there are. */
void relay_mute(Relay *relay);
/* Ends all connections; later ones work. */
void relay_break(Relay *relay);
void relay_free(Relay *relay);

#endif
