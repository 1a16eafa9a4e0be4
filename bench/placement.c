/* SPDX-License-Identifier: MIT */
/*
 * CPU lists, pinning, and namespaces made by the ip program. Parsing and namespaces belong to the
 * coordinating process; entering and pinning to the one that asks.
 */
#include "bench/placement.h"
#include "engine/faultline.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define FAIL(error, code, ...)                                                                     \
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_##code, __VA_ARGS__)

static bool
parse_range(const char *text, cpu_set_t *cpus)
{
    char *end;
    guint64 first = g_ascii_strtoull(text, &end, 10), last = first;

    if (end == text)
        return false;
    if (*end == '-') {
        const char *second = end + 1;
        last = g_ascii_strtoull(second, &end, 10);
        if (end == second)
            return false;
    }
    if (*end || last < first || last >= CPU_SETSIZE)
        return false;
    for (guint64 cpu = first; cpu <= last; cpu++)
        CPU_SET(cpu, cpus);
    return true;
}

static bool
parse_list(const char *text, cpu_set_t *cpus, GError **error)
{
    g_auto(GStrv) ranges = g_strsplit(text, ",", -1);

    CPU_ZERO(cpus);
    for (unsigned i = 0; ranges[i]; i++) {
        if (!parse_range(ranges[i], cpus)) {
            FAIL(error, ARGUMENT, "parse CPU list '%s': write it like 0,2-3", text);
            return false;
        }
    }
    return true;
}

/* The nth CPU of the set, the last one where it has fewer. */
static void
take_nth(const cpu_set_t *from, unsigned nth, cpu_set_t *ret_one)
{
    unsigned last = 0;
    for (unsigned cpu = 0, seen = 0; cpu < CPU_SETSIZE && seen <= nth; cpu++) {
        if (!CPU_ISSET(cpu, from))
            continue;
        last = cpu;
        seen++;
    }
    CPU_ZERO(ret_one);
    CPU_SET(last, ret_one);
}

bool
placement_parse(Placement *placement, const char *source, const char *destination,
                const char *touch, GError **error)
{
    cpu_set_t ours, both;

    if (sched_getaffinity(0, sizeof ours, &ours) < 0) {
        FAIL(error, HOST, "ask for our CPUs: sched_getaffinity: %s", g_strerror(errno));
        return false;
    }
    take_nth(&ours, 0, &placement->source);
    take_nth(&ours, 1, &placement->destination);
    if ((source && !parse_list(source, &placement->source, error)) ||
        (destination && !parse_list(destination, &placement->destination, error)))
        return false;
    placement->touch = placement->destination;
    if (touch && !parse_list(touch, &placement->touch, error))
        return false;
    CPU_AND(&both, &placement->source, &placement->destination);
    placement->shares_cpus = CPU_COUNT(&both) > 0;
    return true;
}

char *
placement_text(const cpu_set_t *cpus)
{
    GString *text = g_string_new(NULL);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, cpus))
            g_string_append_printf(text, text->len ? ",%u" : "%u", cpu);
    return g_string_free(text, FALSE);
}

bool
placement_pin(const cpu_set_t *cpus, GError **error)
{
    if (sched_setaffinity(0, sizeof *cpus, cpus) == 0)
        return true;
    int reason = errno;
    g_autofree char *text = placement_text(cpus);
    FAIL(error, ARGUMENT, "pin to CPUs %s: %s; name CPUs that are online and allowed here", text,
         g_strerror(reason));
    return false;
}

/* ---- Namespaces
 * ------------------------------------------------------------------------------------------- */

static bool
run_ip(GError **error, const char *arguments)
{
    g_autofree char *command = g_strconcat("ip ", arguments, NULL);
    g_autofree char *output = NULL;
    g_autofree char *problem = NULL;
    g_autoptr(GError) reason = NULL;
    int status;

    if (g_spawn_command_line_sync(command, &output, &problem, &status, &reason) &&
        g_spawn_check_wait_status(status, &reason))
        return true;
    FAIL(error, UNSUPPORTED,
         "make network namespaces: '%s': %s%s; it takes root, the iproute2 package and veth",
         command, problem ? g_strchomp(problem) : "", reason->message);
    return false;
}

static bool
set_up(const Netns *netns, const char *const *links, GError **error)
{
    g_autofree char *pair = g_strdup_printf("link add %s netns %s type veth peer name %s netns %s",
                                            links[0], netns->names[0], links[1], netns->names[1]);
    if (!run_ip(error, pair))
        return false;
    for (unsigned i = 0; i < 2; i++) {
        g_autofree char *address = g_strdup_printf("-n %s address add %s/30 dev %s",
                                                   netns->names[i], netns->addresses[i], links[i]);
        g_autofree char *up = g_strdup_printf("-n %s link set %s up", netns->names[i], links[i]);
        g_autofree char *loopback = g_strdup_printf("-n %s link set lo up", netns->names[i]);
        if (!run_ip(error, address) || !run_ip(error, up) || !run_ip(error, loopback))
            return false;
    }
    return true;
}

Netns *
netns_new(GError **error)
{
    Netns *netns = g_new0(Netns, 1);
    const char *const links[2] = {"bench-source", "bench-dest"};
    bool made = true;

    for (unsigned i = 0; i < 2 && made; i++) {
        g_autofree char *name = g_strdup_printf("faultline-%u-%d", i, (int)getpid());
        g_autofree char *add = g_strconcat("netns add ", name, NULL);
        made = run_ip(error, add);
        if (made)
            netns->names[i] = g_steal_pointer(&name);
        netns->addresses[i] = g_strdup_printf("10.213.77.%u", i + 1);
    }
    if (made && set_up(netns, links, error))
        return netns;
    netns_free(netns);
    return NULL;
}

void
netns_free(Netns *netns)
{
    for (unsigned i = 0; i < 2; i++) {
        if (netns->names[i]) {
            g_autofree char *remove = g_strconcat("netns del ", netns->names[i], NULL);
            g_autoptr(GError) failed = NULL;
            if (!run_ip(&failed, remove))
                g_printerr("%s\n", failed->message);
        }
        g_free(netns->names[i]);
        g_free(netns->addresses[i]);
    }
    g_free(netns);
}

bool
netns_enter(const Netns *netns, unsigned side, GError **error)
{
    g_autofree char *path = g_strconcat("/run/netns/", netns->names[side], NULL);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool entered = fd >= 0 && setns(fd, CLONE_NEWNET) == 0;

    if (!entered)
        FAIL(error, UNSUPPORTED, "enter network namespace %s: %s", path, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return entered;
}
