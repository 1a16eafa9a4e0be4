/* SPDX-License-Identifier: MIT */
/*
 * Both sides of one migration. Each process has one control thread, which sleeps in poll() while
 * anything is measured; over the link the destination says 'A' (listening) and 'D' (all touches are
 * done: the rest may come at full speed).
 */
#include "bench/move.h"
#include "bench/keys.h"
#include "bench/clock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOK_MS               5 /* between looks at how far a KVM guest is */
#define HELD_BACK_BYTES_PER_S (1u << 20)
#define WARMING_BYTES_PER_S   (200u << 20)

typedef struct Side {
    const char *keys_dir; /* NULL: no TLS */
    const MovePlan *plan;
    Board *board;
    SideBoard *own;
    bool is_source;
    Faultline *faultline;
    BenchGuest *guest;
    Machine *machine;           /* instead of guest: KVM */
    uint64_t switch_at_touches; /* source, KVM: when all is dirty again; 0: not yet warm */
    uint64_t resumed_ns;
    int link_fd, finished_fd;
    bool asked_postcopy, has_ended, touches_done, link_closed;
    FaultlineStatus status;
} Side;

bool
move_has_setting(const char *name, uint64_t *ret_preset)
{
    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++) {
        if (!g_str_equal(row->name, name))
            continue;
        *ret_preset = row->preset;
        return true;
    }
    for (const FaultlineParameterRow *row = faultline_parameter_table(); row->name; row++) {
        if (!g_str_equal(row->name, name))
            continue;
        *ret_preset = row->preset;
        return true;
    }
    return false;
}

/* ---- Setting up
 * ---------------------------------------------------------------------------------------------- */

static bool
apply(Faultline *faultline, const MoveSetting *setting, GError **error)
{
    uint64_t preset;

    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++)
        if (g_str_equal(row->name, setting->name))
            return faultline_set_capability(faultline, setting->name, setting->value != 0, error);
    if (!move_has_setting(setting->name, &preset))
        return true;
    return faultline_set_parameter(faultline, setting->name, setting->value, error);
}

static uint64_t
push_limit(uint64_t push_bytes_per_s)
{
    if (push_bytes_per_s == PUSH_FULL)
        return 0;
    return push_bytes_per_s == PUSH_OFF ? 1 : push_bytes_per_s;
}

static Faultline *
describe(const Side *side, const FaultlineBlock *block, GError **error)
{
    unsigned count;
    if (!side->machine)
        return faultline_new(bench_guest_calls(), side->guest, block, 1, error);
    const FaultlineBlock *blocks = machine_kvm.blocks(side->machine, &count);
    return faultline_new(machine_kvm.guest, side->machine, blocks, count, error);
}

static bool
make_faultline(Side *side, const FaultlineBlock *block, GError **error)
{
    const MovePlan *plan = side->plan;
    const MoveSetting base[] = {
        {"postcopy-ram", plan->is_postcopy},
        {"postcopy-preempt", plan->is_postcopy && plan->preempt},
        {"postcopy-blocktime", plan->is_postcopy && plan->accounts && !side->is_source},
        /* So that a KVM guest dirties something during the pass that warms, however little of the
         * CPU it gets: a pass that finds nothing dirty would end in precopy. */
        {"max-bandwidth", side->machine ? WARMING_BYTES_PER_S : 0},
        {"max-postcopy-bandwidth", push_limit(plan->push_bytes_per_s)},
        {"downtime-limit", plan->is_postcopy ? 0 : 300},
    };

    side->own->anonymous_before_bytes = process_anonymous_bytes();
    side->faultline = describe(side, block, error);
    if (!side->faultline)
        return false;
    /* The network is our own, between two namespaces. */
    faultline_set_insecure(side->faultline, plan->netns);
    for (unsigned i = 0; i < G_N_ELEMENTS(base); i++)
        if (!apply(side->faultline, &base[i], error))
            return false;
    for (unsigned i = 0; i < plan->count_settings; i++)
        if (!apply(side->faultline, &plan->settings[i], error))
            return false;
    if (side->keys_dir && !bench_keys_use(side->faultline, side->keys_dir, side->is_source, error))
        return false;
    side->own->cpu_begin_s = process_cpu_s();
    return faultline_trace_walk(side->faultline, board_walks(side->board, side->is_source), error);
}

/* ---- Events
 * --------------------------------------------------------------------------------------------------
 */

static void
note_switch(Side *side)
{
    side->own->cpu_switch_s = process_cpu_s();
    side->own->anonymous_during_bytes = process_anonymous_bytes();
    if ((side->is_source || side->machine) && side->plan->touch.count_threads)
        thread_uses_read(&side->own->first);
    if (side->is_source && side->machine)
        side->own->count_slow = kvm_guest_count_slow(side->machine);
    side->resumed_ns = bench_now_ns();
}

static void
take_status(Side *side, const FaultlineEvent *event)
{
    side->status = event->status;
    switch (event->status) {
    case FAULTLINE_STATUS_ACTIVE:
        side->own->active_us = event->time_us;
        break;
    case FAULTLINE_STATUS_POSTCOPY_ACTIVE:
        side->own->postcopy_us = event->time_us;
        if (side->is_source)
            note_switch(side);
        break;
    case FAULTLINE_STATUS_COMPLETED:
    case FAULTLINE_STATUS_FAILED:
    case FAULTLINE_STATUS_CANCELLED:
    case FAULTLINE_STATUS_POSTCOPY_PAUSED:
        side->own->ended_us = event->time_us;
        side->own->cpu_end_s = process_cpu_s();
        side->has_ended = true;
        break;
    default:
        break;
    }
}

/* Postcopy is asked for when the warming pass is over, which the next one's beginning tells. */
static bool
ask_postcopy(Side *side, GError **error)
{
    if (!side->is_source || !side->plan->is_postcopy || side->asked_postcopy)
        return true;
    side->asked_postcopy = true;
    return faultline_start_postcopy(side->faultline, error);
}

/* What threads miss was chosen. A guest of KVM's has to write all of its memory once more, while
 * what it writes is held back, so that all of it is missing. */
static bool
end_warming(Side *side, GError **error)
{
    if (!side->is_source || !side->machine)
        return ask_postcopy(side, error);
    if (side->switch_at_touches)
        return true;
    side->switch_at_touches = kvm_guest_count_touches(side->machine) + side->plan->kvm->count_pages;
    return faultline_set_parameter(side->faultline, "max-bandwidth", HELD_BACK_BYTES_PER_S, error);
}

static bool
take_events(Side *side, GError **error)
{
    FaultlineEvent event;

    while (faultline_next_event(side->faultline, &event)) {
        switch (event.kind) {
        case FAULTLINE_EVENT_STATUS:
            take_status(side, &event);
            break;
        case FAULTLINE_EVENT_PASS:
            side->own->count_passes = event.pass;
            if (event.pass >= 2 && !end_warming(side, error))
                return false;
            break;
        case FAULTLINE_EVENT_STOP:
            if (!side->is_source)
                break; /* what we asked for ourselves */
            side->own->stop_us = event.time_us;
            if (!side->plan->is_postcopy) /* reading /proc would be downtime */
                note_switch(side);
            break;
        case FAULTLINE_EVENT_RESUME:
            side->own->resume_us = event.time_us;
            if (!side->is_source)
                note_switch(side);
            break;
        case FAULTLINE_EVENT_HEARD:
        case FAULTLINE_EVENT_VERDICT:
        case FAULTLINE_EVENT_REFUSED:
            break;
        }
    }
    return true;
}

/* ---- The link, and the end of the touches
 * -------------------------------------------------------------------- */

/* Source: the rest at full speed; the destination only learns that the source is gone. A new limit
 * is looked at when the pusher wakes, so wake it. */
static bool
take_done(Side *side, GError **error)
{
    char byte;
    ssize_t got = recv(side->link_fd, &byte, 1, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    side->link_closed = got <= 0;
    if (got <= 0 && !side->is_source && !side->own->active_us && !side->has_ended) {
        g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                            "the source ended before it connected");
        return false;
    }
    if (got <= 0 || byte != 'D')
        return true;
    thread_uses_read(&side->own->last);
    faultline_query(side->faultline, &side->own->at_last);
    side->touches_done = true;
    if (!faultline_set_parameter(side->faultline, "max-postcopy-bandwidth", 0, error))
        return false;
    if (!side->has_ended)
        faultline_start_postcopy(side->faultline, NULL);
    return true;
}

/* A guest that has faulted often enough, or has nothing to wait for any more, is stopped and read
 * afterwards. */
static bool
look_at_destination(Side *side, GError **error)
{
    const TouchPlan *touch = &side->plan->touch;
    const uint64_t one = 1;

    if (!side->resumed_ns || side->touches_done)
        return true;
    faultline_query(side->faultline, &side->own->at_last);
    if (side->own->at_last.postcopy_requests < touch->count_touches && !side->has_ended &&
        bench_now_ns() < side->resumed_ns + touch->limit_ns)
        return true;
    side->board->touch_ns = (uint64_t)(g_get_real_time() - side->own->resume_us) * 1000;
    if (!faultline_stop(side->faultline, error))
        return false;
    side->own->count_slow = kvm_guest_count_slow(side->machine);
    return write(side->finished_fd, &one, sizeof one) == sizeof one;
}

/* Nobody tells how far a KVM guest is, so it is looked at. */
static bool
look_at_machine(Side *side, GError **error)
{
    if (!side->machine)
        return true;
    if (!side->is_source)
        return look_at_destination(side, error);
    bool is_dirty = side->switch_at_touches &&
                    kvm_guest_count_touches(side->machine) >= side->switch_at_touches;
    return !is_dirty || ask_postcopy(side, error);
}

/* Destination. A source that has sent all of its pages may have left. */
static void
tell_done(Side *side)
{
    uint64_t count;

    if (read(side->finished_fd, &count, sizeof count) != sizeof count)
        return;
    thread_uses_read(&side->own->last);
    faultline_query(side->faultline, &side->own->at_last);
    side->touches_done = true;
    (void)send(side->link_fd, "D", 1, MSG_NOSIGNAL);
}

static bool
is_over(const Side *side)
{
    bool has_touches = side->plan->is_postcopy && side->plan->touch.count_threads;
    bool failed = side->has_ended && side->status != FAULTLINE_STATUS_COMPLETED;
    if (side->is_source)
        return side->has_ended;
    return failed || (side->has_ended && (side->touches_done || !has_touches));
}

static bool
watch(Side *side, GError **error)
{
    while (!is_over(side)) {
        struct pollfd fds[] = {
            {.fd = faultline_event_fd(side->faultline), .events = POLLIN},
            {.fd = side->link_closed ? -1 : side->link_fd, .events = POLLIN},
            {.fd = side->touches_done ? -1 : side->finished_fd, .events = POLLIN},
        };
        bool looks = side->machine && !side->touches_done && !side->asked_postcopy;
        if (poll(fds, G_N_ELEMENTS(fds), looks ? LOOK_MS : -1) < 0 && errno != EINTR)
            break;
        if (!look_at_machine(side, error))
            return false;
        if (!take_events(side, error) || (fds[1].revents && !take_done(side, error)))
            return false;
        if (fds[2].revents)
            tell_done(side);
    }
    faultline_query(side->faultline, &side->own->at_end);
    if (side->is_source && side->plan->is_postcopy && !side->asked_postcopy &&
        side->status == FAULTLINE_STATUS_COMPLETED) {
        g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                            "the guest had moved by precopy before postcopy was asked for: its "
                            "vCPU gets too little of the CPU; give it one by --source-cpus");
        return false;
    }
    if (side->status == FAULTLINE_STATUS_COMPLETED)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "the migration ended as %s: %s",
                faultline_status_name(side->status), side->own->at_end.error);
    return false;
}

/* ---- The two processes
 * --------------------------------------------------------------------------------------- */

static bool
make_guest(Side *side, const FaultlineBlock *block, GError **error)
{
    const MovePlan *plan = side->plan;
    const cpu_set_t *cpus = &plan->placement->touch;

    if (plan->kvm)
        side->machine = kvm_guest_new(plan->kvm, plan->backing, !side->is_source, cpus, error);
    else if (side->is_source)
        side->guest = bench_guest_new_source(block, &plan->dirty);
    else
        side->guest = bench_guest_new_destination(block, &plan->touch, cpus, side->board,
                                                  side->finished_fd, error);
    return side->guest || side->machine;
}

static void
free_guest(Side *side)
{
    if (side->machine)
        machine_kvm.free(side->machine);
    else
        bench_guest_free(side->guest);
}

static bool
run_source(void *context, int link_fd, GError **error)
{
    Side *side = context;
    char byte;

    side->link_fd = link_fd;
    if (!side->plan->kvm)
        bench_map_source(side->plan->source_block);
    if (!make_guest(side, side->plan->source_block, error) ||
        !make_faultline(side, side->plan->source_block, error) ||
        !faultline_cont(side->faultline, error) ||
        (side->machine && !kvm_guest_wait(side->machine, side->plan->limit_s / 2, error)))
        return false;
    if (recv(link_fd, &byte, 1, 0) != 1) {
        g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                            "the destination ended before it listened");
        return false;
    }
    if (!faultline_migrate(side->faultline, side->board->address, error) ||
        (!side->plan->is_warm && !ask_postcopy(side, error)) || !watch(side, error))
        return false;
    /* The destination may still have touches to do; its memory is whole without us. */
    faultline_free(side->faultline);
    free_guest(side);
    return true;
}

/* The engine says where it listens by its own address, the source needs one that it can reach. */
static void
publish_address(Side *side)
{
    g_autofree char *address = faultline_incoming_address(side->faultline);
    const char *port = address ? strrchr(address, ':') : NULL;

    if (side->plan->is_unix || !port)
        g_strlcpy(side->board->address, address ? address : "", sizeof side->board->address);
    else
        g_snprintf(side->board->address, sizeof side->board->address, "tcp:%s%s",
                   move_host(side->plan->netns), port);
}

static bool
listen_and_watch(Side *side, const FaultlineBlock *block, GError **error)
{
    g_autofree char *path = move_socket_path();
    g_autofree char *uri = side->plan->is_unix
                               ? g_strconcat("unix:", path, NULL)
                               : g_strdup_printf("tcp:%s:0", move_host(side->plan->netns));
    bool done =
        make_faultline(side, block, error) && faultline_incoming(side->faultline, uri, error);
    if (done) {
        publish_address(side);
        done = send(side->link_fd, "A", 1, MSG_NOSIGNAL) == 1 && watch(side, error);
    }
    if (side->plan->is_unix)
        unlink(path);
    return done;
}

static bool
run_destination(void *context, int link_fd, GError **error)
{
    Side *side = context;
    FaultlineBlock block;

    side->link_fd = link_fd;
    side->finished_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (side->plan->warms_host)
        bench_warm_host(side->plan->backing, side->plan->source_block->length_bytes);
    if (!side->plan->kvm &&
        !bench_map(side->plan->backing, side->plan->source_block->length_bytes, &block, error))
        return false;
    /* A failed one leaves by exit: its threads may wait for pages that never come. */
    if (!make_guest(side, &block, error) || !listen_and_watch(side, &block, error))
        return false;
    faultline_free(side->faultline);
    if (side->machine)
        kvm_guest_read(side->plan->kvm, side->machine, side->board->source.count_slow,
                       side->own->count_slow, side->board);
    free_guest(side);
    if (side->plan->count_loads)
        bench_load_at_random(&block, side->plan->count_loads, side->board);
    if (!side->plan->kvm)
        ram_unmap(&block);
    return true;
}

bool
move_run(const MovePlan *plan, Board *board, GError **error)
{
    Side source = {
        .plan = plan, .board = board, .own = &board->source, .is_source = true, .finished_fd = -1};
    Side destination = {.plan = plan, .board = board, .own = &board->destination};
    ForkedChild children[2] = {
        {"source", run_source, &source, &plan->placement->source, plan->netns, 0,
         board->source.error},
        {"destination", run_destination, &destination, &plan->placement->destination, plan->netns,
         1, board->destination.error},
    };

    char *keys_dir = plan->uses_tls ? bench_keys_make(error) : NULL;
    if (plan->uses_tls && !keys_dir)
        return false;
    source.keys_dir = destination.keys_dir = keys_dir;
    board_clear(board);
    bool done = forked_pair_run(children, plan->limit_s, error);
    bench_keys_remove(keys_dir);
    return done;
}
