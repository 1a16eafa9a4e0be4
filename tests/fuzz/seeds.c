/* SPDX-License-Identifier: MIT */
/*
 * Writes seeds: what two of our own sides say to each other in tests/sim, as inputs for one of them
 * (side.h), and the beginnings of the recorded channels of QEMUs.
 *
 *     build/tests/fuzz/seeds tests/fuzz/corpus      (make fuzz-seeds; from the top of the tree)
 *
 * Linked with --wrap of the calls that are listened to.
 */
#include "tests/fuzz/side.h"
#include "tests/sim/sim_guest.h"
#include "tests/sim/sim_pipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED_BYTES_MAX 8192u
#define PREFIX_BYTES   3000u
#define RUNS           1000u

typedef struct Log {
    GByteArray *bytes;
    char channel;
    bool is_due; /* the other side has spoken since */
} Log;

static Log logs[SIM_SIDES];              /* what each side hears, and what is done to it */
static unsigned count_waits, first_link; /* of this connection */

static void
put(Log *log, const void *bytes, size_t length)
{
    if (log->bytes)
        g_byte_array_append(log->bytes, bytes, (guint)length);
}

static void
put_mark(Log *log, char letter)
{
    put(log, SIDE_MARK, SIDE_MARK_BYTES);
    put(log, &letter, 1);
}

static void
go_to(Log *log, char channel)
{
    if (log->is_due)
        put_mark(log, 'w');
    log->is_due = false;
    if (log->channel != channel)
        put_mark(log, channel);
    log->channel = channel;
}

/* ---- What is listened to -----------------------------------------------------------------------
 */

TransportResult __real_transport_send(TransportSender *sender, const struct iovec *iov,
                                      unsigned count_iov);
TransportResult __wrap_transport_send(TransportSender *sender, const struct iovec *iov,
                                      unsigned count_iov);
SimTouch __real_sim_uffd_touch(unsigned block, unsigned page, uint32_t thread, bool write,
                               uint8_t **ret_bytes);
SimTouch __wrap_sim_uffd_touch(unsigned block, unsigned page, uint32_t thread, bool write,
                               uint8_t **ret_bytes);
TransportResult __real_transport_connect_finish(TransportConnector *connector,
                                                TransportLink **ret_link, GError **error);
TransportResult __wrap_transport_connect_finish(TransportConnector *connector,
                                                TransportLink **ret_link, GError **error);
bool __real_faultline_start_postcopy(Faultline *faultline, GError **error);
bool __wrap_faultline_start_postcopy(Faultline *faultline, GError **error);
bool __real_faultline_recover(Faultline *faultline, const char *uri, GError **error);
bool __wrap_faultline_recover(Faultline *faultline, const char *uri, GError **error);
bool __real_faultline_migrate_resume(Faultline *faultline, const char *uri, GError **error);
bool __wrap_faultline_migrate_resume(Faultline *faultline, const char *uri, GError **error);
void __real_sim_guest_reset(void);
void __wrap_sim_guest_reset(void);
void __real_sim_plan_make(uint64_t seed);
void __wrap_sim_plan_make(uint64_t seed);

static void
put_piece(Log *log, const struct iovec *iov)
{
    SimSide at;
    unsigned block;
    uint64_t offset;

    if (!sim_guest_find(iov->iov_base, &at, &block, &offset)) {
        put(log, iov->iov_base, iov->iov_len);
        return;
    }
    for (size_t done = 0; done < iov->iov_len; done += SIM_PAGE) {
        const uint8_t *page = (uint8_t *)iov->iov_base + done;
        bool is_even = memcmp(page, page + 1, SIM_PAGE - 1) == 0;
        if (is_even)
            put_mark(log, 'P');
        put(log, page, is_even ? 1 : SIM_PAGE);
    }
}

TransportResult
__wrap_transport_send(TransportSender *sender, const struct iovec *iov, unsigned count_iov)
{
    TransportResult result = __real_transport_send(sender, iov, count_iov);
    SimSide to = sender->link->end == 0 ? SIM_DESTINATION : SIM_SOURCE;
    Log *log = &logs[to];

    if (result != TRANSPORT_OK)
        return result;
    go_to(log, sender->link->number != first_link ? 'u' : 'm');
    for (unsigned i = 0; i < count_iov; i++)
        put_piece(log, &iov[i]);
    logs[!to].is_due = true;
    return result;
}

TransportResult
__wrap_transport_connect_finish(TransportConnector *connector, TransportLink **ret_link,
                                GError **error)
{
    TransportResult result = __real_transport_connect_finish(connector, ret_link, error);
    if (result == TRANSPORT_OK)
        go_to(&logs[SIM_DESTINATION], (*ret_link)->number != first_link ? 'u' : 'm');
    return result;
}

SimTouch
__wrap_sim_uffd_touch(unsigned block, unsigned page, uint32_t thread, bool write,
                      uint8_t **ret_bytes)
{
    SimTouch result = __real_sim_uffd_touch(block, page, thread, write, ret_bytes);
    const uint8_t pair[2] = {(uint8_t)block, (uint8_t)page};
    if (result == SIM_TOUCH_WAIT) {
        count_waits++;
        go_to(&logs[SIM_DESTINATION], 't');
        put(&logs[SIM_DESTINATION], pair, sizeof pair);
    }
    return result;
}

bool
__wrap_faultline_start_postcopy(Faultline *faultline, GError **error)
{
    logs[SIM_SOURCE].is_due = true;
    go_to(&logs[SIM_SOURCE], 'm');
    put_mark(&logs[SIM_SOURCE], 'p');
    logs[SIM_SOURCE].is_due = true;
    return __real_faultline_start_postcopy(faultline, error);
}

static void
put_recovery(Log *log)
{
    put_mark(log, 'R');
    log->channel = 'm';
    log->is_due = false;
}

bool
__wrap_faultline_recover(Faultline *faultline, const char *uri, GError **error)
{
    put_recovery(&logs[SIM_DESTINATION]);
    return __real_faultline_recover(faultline, uri, error);
}

bool
__wrap_faultline_migrate_resume(Faultline *faultline, const char *uri, GError **error)
{
    put_recovery(&logs[SIM_SOURCE]);
    first_link = net.count_connections;
    return __real_faultline_migrate_resume(faultline, uri, error);
}

/* ---- Our own -----------------------------------------------------------------------------------
 */

void
__wrap_sim_plan_make(uint64_t seed)
{
    SimPlan *made = &sim.plan;

    __real_sim_plan_make(seed);
    made->blocks[0] = (SimBlockPlan){SIM_PAGE, 24, true};
    made->blocks[1] = (SimBlockPlan){seed & 1 ? 4 * SIM_PAGE : SIM_PAGE, 16, false};
    made->count_blocks = 2;
    made->count_vcpus = 1;
    made->count_faults = seed & 2 ? 1 : 0;
    made->faults[0] = (SimFault){
        .point = SIM_POINT_CUT_TIME, .phase = SIM_PHASE_POSTCOPY, .at = 500 + sim_below(200000)};
    made->count_flips = 0;
    made->records[SIM_SOURCE] = made->records[SIM_DESTINATION] = false;
    made->recoveries = 1;
    made->release = false;
    made->careless_percent = made->again_percent = made->break_percent = 0;
    made->quit_ns = UINT64_MAX;
    made->start_paused = made->tracker = made->waits_before_switch = false;
    made->spurious_percent = made->preempt_percent = 0;
    made->idle_ns = 0;
    made->bandwidth_bytes_per_s = made->push_bytes_per_s = 0;
}

/* Pages that are one byte all over take little room. */
void
__wrap_sim_guest_reset(void)
{
    __real_sim_guest_reset();
    for (unsigned block = 0; block < sim.plan.count_blocks; block++)
        for (unsigned page = 0; page < sim.plan.blocks[block].count_pages; page++) {
            uint8_t value = page % 3 ? (uint8_t)(0x40 + block * 64 + page) : 0;
            memset(sim_truth_page(block, page), value, SIM_PAGE);
            memset(sim_source_memory(block) + page * (size_t)SIM_PAGE, value, SIM_PAGE);
        }
}

static uint8_t
options_of(const SimPlan *made, SimSide to)
{
    return (
        uint8_t)(!made->postcopy * SIDE_OPTION_PRECOPY + made->preempt * SIDE_OPTION_PREEMPT +
                 made->blocktime * SIDE_OPTION_BLOCKTIME + !made->runs[to] * SIDE_OPTION_NO_RUNS +
                 (made->blocks[1].page_bytes != SIM_PAGE) * SIDE_OPTION_HUGE +
                 made->zap_needed * SIDE_OPTION_ZAP + !made->return_path * SIDE_OPTION_NO_RETURN);
}

static void
write_seed(const char *folder, const char *harness, const char *name, const GByteArray *bytes)
{
    g_autofree char *path = g_build_filename(folder, harness, name, NULL);
    if (!g_file_set_contents(path, (const char *)bytes->data, bytes->len, NULL)) {
        fprintf(stderr, "seeds: cannot write %s\n", path);
        exit(1);
    }
}

/* What a seed is kept for: what was agreed, and how far it went. */
static unsigned
kind_of(uint8_t options)
{
    unsigned agreed = options & (SIDE_OPTION_PRECOPY | SIDE_OPTION_PREEMPT | SIDE_OPTION_NO_RUNS |
                                 SIDE_OPTION_NO_RETURN);
    unsigned stage = sim.outcomes[SIM_OUTCOME_POSTCOPY] == 0 ? 0
                     : sim.outcomes[SIM_OUTCOME_RECOVERIES]  ? 3
                     : count_waits == 0                      ? 1
                                                             : 2;
    return agreed + 256 * stage;
}

/* The shortest of each kind of migration. */
static void
write_own(const char *folder, SimSide to, const char *harness)
{
    static uint64_t coverage[SIM_PHASE_COUNT][SIM_POINT_COUNT], outcomes[SIM_OUTCOME_COUNT];
    GByteArray *best[8 * 256] = {NULL};

    sim.coverage = coverage;
    sim.outcomes = outcomes;
    for (uint64_t seed = 1; seed <= RUNS; seed++) {
        memset(logs, 0, sizeof logs);
        memset(outcomes, 0, sizeof outcomes);
        count_waits = first_link = 0;
        logs[to].bytes = g_byte_array_new();
        logs[to].channel = 'm';
        sim_run(seed);
        bool seals = sim.plan.checksums[SIM_SOURCE] && sim.plan.checksums[SIM_DESTINATION];
        const uint8_t head[2] = {options_of(&sim.plan, to), seals ? SIDE_SEED_CHECKSUMS : 0};
        unsigned kind = kind_of(head[0]) + 1024 * seals;
        g_byte_array_prepend(logs[to].bytes, head, sizeof head);
        if (!best[kind] || best[kind]->len > logs[to].bytes->len) {
            g_clear_pointer(&best[kind], g_byte_array_unref);
            best[kind] = g_steal_pointer(&logs[to].bytes);
        }
        g_clear_pointer(&logs[to].bytes, g_byte_array_unref);
    }
    for (unsigned kind = 0; kind < G_N_ELEMENTS(best); kind++) {
        static const char *const stages[] = {"precopy", "postcopy", "requests", "recovery"};
        g_autofree char *name = g_strdup_printf("own-%s%s-%02x", kind / 1024 ? "sealed-" : "",
                                                stages[kind / 256 % 4], kind % 256);
        if (best[kind] && best[kind]->len <= SEED_BYTES_MAX)
            write_seed(folder, harness, name, best[kind]);
        g_clear_pointer(&best[kind], g_byte_array_unref);
    }
}

/* ---- Recorded ----------------------------------------------------------------------------------
 */

/* The beginning of a channel, behind its mark. */
static void
put_recorded(GByteArray *seed, char letter, const char *name)
{
    g_autofree char *command = g_strdup_printf("gzip -dc tests/captures/%s.gz", name);
    uint8_t bytes[PREFIX_BYTES];
    FILE *output = popen(command, "r");
    size_t length = output ? fread(bytes, 1, sizeof bytes, output) : 0;

    if (output)
        pclose(output);
    g_byte_array_append(seed, (const uint8_t *)SIDE_MARK, SIDE_MARK_BYTES);
    g_byte_array_append(seed, (const uint8_t *)&letter, 1);
    g_byte_array_append(seed, bytes, (guint)length);
}

static void
write_recorded(const char *folder)
{
    /* name, then letter and file of each channel */
    static const char *const seeds[][9] = {
        {"precopy-72", "m", "pre77.0.fwd", "u", "pre77.1.fwd", "r", "pre77.0.rev"},
        {"precopy-111", "m", "pre1111.0.fwd", "u", "pre1111.1.fwd", "r", "pre1111.0.rev"},
        {"postcopy-72", "m", "post77.0.fwd", "r", "post77.0.rev"},
        {"postcopy-111", "m", "post11.0.fwd", "r", "post11.0.rev"},
        {"return-path-72", "m", "rp77.0.fwd", "r", "rp77.0.rev"},
        {"return-path-111", "m", "rp1111.0.fwd", "r", "rp1111.0.rev"},
        {"multifd-111", "f", "mf1111.1.fwd", "f", "mf1111.2.fwd", "m", "mf1111.0.fwd"},
        {"recovery-72", "m", "rec77.0.fwd", "r", "rec77.1.rev", "R", "rec77.1.fwd"},
        {"recovery-111", "m", "rec11.0.fwd", "r", "rec11.1.rev", "R", "rec11.1.fwd"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(seeds); i++) {
        g_autoptr(GByteArray) seed = g_byte_array_new();
        g_byte_array_append(seed, (const uint8_t *)"", 1);
        for (unsigned j = 1; j + 1 < G_N_ELEMENTS(seeds[i]) && seeds[i][j]; j += 2)
            put_recorded(seed, seeds[i][j][0], seeds[i][j + 1]);
        write_seed(folder, "stream", seeds[i][0], seed);
    }
}

int
main(int count_arguments, char **arguments)
{
    if (count_arguments != 2) {
        fprintf(stderr, "usage: seeds FOLDER\n");
        return 2;
    }
    write_own(arguments[1], SIM_DESTINATION, "destination");
    write_own(arguments[1], SIM_SOURCE, "source");
    write_recorded(arguments[1]);
    return 0;
}
