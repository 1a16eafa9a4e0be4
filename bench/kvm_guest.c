/* SPDX-License-Identifier: MIT */
/*
 * Parameters into the boot image, log and pages out of the guest's memory. The layouts are those of
 * bench/guest/latency.asm. Coordinating process: the plan; control thread of a side: the rest.
 */
#include "bench/kvm_guest.h"
#include "bench/clock.h"
#include "engine/walk.h"

#include <string.h>
#include <unistd.h>

#define IMAGE_ADDRESS  0x7c00u
#define PARAMETERS     16u /* offset in the image */
#define LOG_ADDRESS    (1u << 20)
#define HUGE           (2u << 20)
#define MEMORY_MAX     (3ull << 30) /* below a PC's hole */
#define PAGES_MIN      1024u
#define FACTOR         3u /* slow is what takes so many times the quickest */
#define REPORT_TICKS   0x7fffffffu
#define WAIT_US        10000u
#define PARAMETER_MARK "FLLATENC"

typedef struct Parameters {
    char mark[8];
    uint32_t fill, pages, base, mask, log, log_mask, factor, report;
} Parameters;

typedef struct State {
    uint64_t touches, slow, stalled;
    uint32_t longest, local, threshold, filled;
} State;

typedef struct Entry {
    uint64_t end_ticks;
    uint32_t ticks, address;
} Entry;

G_STATIC_ASSERT(sizeof(Parameters) == 40 && sizeof(State) == 40 && sizeof(Entry) == 16);

static uint64_t
power_of_two(uint64_t least)
{
    uint64_t power = 1;
    while (power < least)
        power *= 2;
    return power;
}

/* ---- The plan ---------------------------------------------------------------------------------
 */

/* make builds the image beside the benches; tests lie two folders from there. */
static char *
read_image(gsize *ret_length, GError **error)
{
    g_autofree char *program = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = g_path_get_dirname(program ? program : ".");
    g_autofree char *near = g_build_filename(folder, "latency.bin", NULL);
    g_autofree char *far = g_build_filename(folder, "../../bench/latency.bin", NULL);
    const char *path = g_file_test(near, G_FILE_TEST_EXISTS) ? near : far;
    char *image = NULL;

    if (!g_file_get_contents(path, &image, ret_length, error)) {
        g_prefix_error(error, "boot the guest (make builds it): ");
        return NULL;
    }
    if (*ret_length > PARAMETERS + sizeof(Parameters) + sizeof(State) &&
        memcmp(image + PARAMETERS, PARAMETER_MARK, 8) == 0)
        return image;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "boot the guest: %s is not the image of this bench; build it anew", path);
    g_free(image);
    return NULL;
}

bool
kvm_plan_init(KvmPlan *plan, uint64_t memory_bytes, GError **error)
{
    uint64_t pages = memory_bytes / FAULTLINE_PAGE_BYTES;
    /* During postcopy each page is slow once, and before it now and then. */
    uint64_t entries = power_of_two(2 * pages);
    uint64_t base = (LOG_ADDRESS + entries * sizeof(Entry) + HUGE - 1) / HUGE * HUGE;
    gsize length;

    *plan = (KvmPlan){.memory_bytes = memory_bytes, .base = base, .count_entries = entries};
    plan->count_pages = memory_bytes > base ? (memory_bytes - base) / FAULTLINE_PAGE_BYTES : 0;
    if (plan->count_pages < PAGES_MIN || memory_bytes > MEMORY_MAX) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "--guest kvm: its memory is 16M to 3G");
        return false;
    }
    g_autofree char *image = read_image(&length, error);
    if (!image)
        return false;
    const Parameters parameters = {.mark = PARAMETER_MARK,
                                   .fill = (uint32_t)plan->count_pages,
                                   .pages = (uint32_t)plan->count_pages,
                                   .base = (uint32_t)base,
                                   .mask = (uint32_t)power_of_two(plan->count_pages) - 1,
                                   .log = LOG_ADDRESS,
                                   .log_mask = (uint32_t)(entries * sizeof(Entry)) - 1,
                                   .factor = FACTOR,
                                   .report = REPORT_TICKS};
    memcpy(image + PARAMETERS, &parameters, sizeof parameters);
    plan->image = g_strdup_printf("%s/faultline-bench-%d.bin", g_get_tmp_dir(), (int)getpid());
    return g_file_set_contents(plan->image, image, (gssize)length, error);
}

void
kvm_plan_clear(KvmPlan *plan)
{
    if (plan->image)
        unlink(plan->image);
    g_clear_pointer(&plan->image, g_free);
}

/* ---- A side's machine -------------------------------------------------------------------------
 */

static const FaultlineBlock *
block_of(Machine *machine)
{
    unsigned count;
    return &machine_kvm.blocks(machine, &count)[0];
}

static char *
memory_of(Machine *machine)
{
    return block_of(machine)->host_address;
}

static State
state_of(Machine *machine)
{
    State state;
    memcpy(&state, memory_of(machine) + IMAGE_ADDRESS + PARAMETERS + sizeof(Parameters),
           sizeof state);
    return state;
}

Machine *
kvm_guest_new(const KvmPlan *plan, Backing backing, bool is_incoming, const cpu_set_t *cpus,
              GError **error)
{
    const MachineOptions options = {.memory_bytes = plan->memory_bytes,
                                    .cpus = 1,
                                    .boot = plan->image,
                                    .serial = "none",
                                    .memory = bench_memory_kind(backing),
                                    .incoming = is_incoming};
    Machine *machine = machine_kvm.make(&options, error);

    if (machine && is_incoming)
        sched_setaffinity(machine_kvm.guest->vcpu_thread(machine, 0), sizeof *cpus, cpus);
    return machine;
}

bool
kvm_guest_wait(Machine *machine, unsigned limit_s, GError **error)
{
    uint64_t end_ns = bench_now_ns() + limit_s * 1000000000ull;

    while (!state_of(machine).filled && bench_now_ns() < end_ns)
        g_usleep(WAIT_US);
    if (state_of(machine).filled)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "wait for the guest: it has not filled its memory within %u s; give less --memory",
                limit_s);
    return false;
}

uint64_t
kvm_guest_count_touches(Machine *machine)
{
    return state_of(machine).touches;
}

uint64_t
kvm_guest_count_slow(Machine *machine)
{
    return state_of(machine).slow;
}

/* Each page tells its own address. */
static uint64_t
count_wrong(const KvmPlan *plan, const char *memory)
{
    uint64_t wrong = 0;
    for (uint64_t page = 0; page < plan->count_pages; page++) {
        uint64_t address = plan->base + page * FAULTLINE_PAGE_BYTES;
        uint32_t told;
        memcpy(&told, memory + address + 8, sizeof told);
        wrong += told != address;
    }
    return wrong;
}

/* Pages whose fault the engine has read, in units of page_bytes, plus one. */
static GHashTable *
pages_read(const Board *board, uint64_t page_bytes)
{
    const FaultlineWalkTrace *trace = &board->destination.walks[FAULTLINE_WALK_FAULT];
    GHashTable *pages = g_hash_table_new(g_direct_hash, g_direct_equal);

    for (uint64_t i = 0; i < trace->count; i++) {
        uint64_t page = trace->records[i].page * FAULTLINE_PAGE_BYTES / page_bytes;
        if (trace->records[i].step == WALK_FAULT_READ)
            g_hash_table_add(pages, GSIZE_TO_POINTER(page + 1));
    }
    return pages;
}

void
kvm_guest_read(const KvmPlan *plan, Machine *machine, uint64_t first, uint64_t end, Board *board)
{
    const char *memory = memory_of(machine);
    const Entry *log = (const Entry *)(const void *)(memory + LOG_ADDRESS);
    uint64_t page_bytes = block_of(machine)->page_size_bytes, count = 0;
    Touch *touches = board_touches(board, 0);

    g_autoptr(GHashTable) waited = pages_read(board, page_bytes);
    if (end > plan->count_entries)
        first = MAX(first, end - plan->count_entries);
    for (uint64_t i = first; i < end && count < board->room; i++) {
        const Entry *entry = &log[i % plan->count_entries];
        uint64_t page = entry->address / page_bytes;
        bool has_waited = g_hash_table_remove(waited, GSIZE_TO_POINTER(page + 1));
        touches[count++] = (Touch){.ticks = entry->ticks,
                                   .page = (uint32_t)page,
                                   .kind = has_waited ? TOUCH_WAITED : TOUCH_MAPPED};
    }
    board->count_touches[0] = count;
    board->local_ticks = state_of(machine).local;
    board->count_wrong = count_wrong(plan, memory);
}
