/* SPDX-License-Identifier: MIT */
/*
 * The checks of the host, gathered: what uffd/ and transport/ tried, and the CPU's latency, as rows
 * of the public interface. The caller's thread; nothing of a migration is touched. The simulation
 * has no host and leaves this file out.
 */
#include "engine/faultline.h"
#include "engine/role.h"
#include "transport/transport.h"
#include "uffd/uffd.h"

#include <errno.h>
#include <unistd.h>

G_STATIC_ASSERT((int)UFFD_CHECK_OK == (int)FAULTLINE_CHECK_OK);
G_STATIC_ASSERT((int)UFFD_CHECK_WARNING == (int)FAULTLINE_CHECK_WARNING);
G_STATIC_ASSERT((int)UFFD_CHECK_CLOSED == (int)FAULTLINE_CHECK_CLOSED);
G_STATIC_ASSERT((int)TRANSPORT_CHECK_OK == (int)FAULTLINE_CHECK_OK);
G_STATIC_ASSERT((int)TRANSPORT_CHECK_WARNING == (int)FAULTLINE_CHECK_WARNING);
G_STATIC_ASSERT((int)TRANSPORT_CHECK_CLOSED == (int)FAULTLINE_CHECK_CLOSED);

typedef struct Rows {
    void (*take)(void *opaque, const FaultlineCheck *check);
    void *opaque;
    bool any_closed;
} Rows;

const char *
faultline_check_state_name(FaultlineCheckState state)
{
    static const char *const names[] = {"ok", "warning", "closed"};
    G_STATIC_ASSERT(G_N_ELEMENTS(names) == FAULTLINE_CHECK_CLOSED + 1);

    return (unsigned)state < G_N_ELEMENTS(names) ? names[state] : "unknown";
}

static void
pass_on(Rows *rows, const char *name, const char *tried, FaultlineCheckState state,
        const char *text)
{
    const FaultlineCheck check = {.name = name, .tried = tried, .state = state, .text = text};

    rows->any_closed |= state == FAULTLINE_CHECK_CLOSED;
    rows->take(rows->opaque, &check);
}

static void
take_uffd(void *opaque, const UffdCheck *check)
{
    pass_on(opaque, check->name, check->tried, (FaultlineCheckState)check->state, check->text);
}

static void
take_transport(void *opaque, const TransportCheck *check)
{
    pass_on(opaque, check->name, check->tried, (FaultlineCheckState)check->state, check->text);
}

static void
check_cpu_latency(Rows *rows)
{
    int hold = cpu_latency_hold();
    int reason = errno;
    g_autofree char *text =
        hold >= 0 ? g_strdup("can be held at 0 during postcopy")
                  : g_strdup_printf("%s. Run 'setfacl -m u:%u:rw /dev/cpu_dma_latency' as root; "
                                    "without it idle CPUs take longer to answer a fault",
                                    g_strerror(reason), geteuid());

    cpu_latency_release(hold);
    pass_on(rows, "cpu-dma-latency", "/dev/cpu_dma_latency",
            hold >= 0 ? FAULTLINE_CHECK_OK : FAULTLINE_CHECK_WARNING, text);
}

bool
faultline_check_host(const FaultlineGuest *guest, const char *uri,
                     void (*take)(void *opaque, const FaultlineCheck *check), void *opaque)
{
    Rows rows = {.take = take, .opaque = opaque};
    bool needs_tracker = guest && !guest->dirty_log_start;

    uffd_check_host(needs_tracker, take_uffd, &rows);
    transport_check_host(uri, take_transport, &rows);
    check_cpu_latency(&rows);
    return !rows.any_closed;
}
