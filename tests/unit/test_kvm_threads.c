/* SPDX-License-Identifier: MIT */
/*
 * The thread guest finds every kind of wrong page, moves by its state alone, and writes nothing
 * while it is paused. Real memory and real threads.
 */
#include "kvm/machine.h"
#include "kvm/thread_share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES       4096u /* two table pages a share of two */
#define PAGE        FAULTLINE_PAGE_BYTES
#define LOW_PAGES   3000u
#define DATA_TESTED 100u

typedef struct Fixture {
    ThreadMemory memory;
    ThreadShare share;
} Fixture;

static void
map_block(FaultlineBlock *block, uint64_t pages)
{
    void *address =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(address != MAP_FAILED);
    *block = (FaultlineBlock){.host_address = address, .length_bytes = pages * PAGE, .fd = -1};
}

static void
fixture_init(Fixture *fixture, uint32_t index)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->memory.count_blocks = 2;
    map_block(&fixture->memory.blocks[0], LOW_PAGES);
    map_block(&fixture->memory.blocks[1], PAGES - LOW_PAGES);
    thread_share_init(&fixture->share, &fixture->memory, index, 2, 1000 * 2 * PAGE, 0);
}

static void
fixture_clear(Fixture *fixture)
{
    thread_share_clear(&fixture->share);
    for (unsigned i = 0; i < 2; i++)
        munmap(fixture->memory.blocks[i].host_address, fixture->memory.blocks[i].length_bytes);
}

static char *
page_at(const ThreadMemory *memory, uint64_t page)
{
    if (page < LOW_PAGES)
        return (char *)memory->blocks[0].host_address + page * PAGE;
    return (char *)memory->blocks[1].host_address + (page - LOW_PAGES) * PAGE;
}

/* Page number of the share: its data page `data`. */
static char *
data_page(Fixture *fixture, uint64_t data)
{
    return page_at(&fixture->memory,
                   fixture->share.first_page + fixture->share.count_tables + data);
}

static void
write_pages(ThreadShare *share, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_true(thread_share_write(share));
}

/* One whole sweep from its beginning. */
static bool
sweep(ThreadShare *share)
{
    share->sweep = 0;
    for (uint64_t i = 0; i < share->count_pages; i++)
        if (!thread_share_check(share))
            return false;
    return true;
}

static void
sweep_untouched_memory_is_right(void **state)
{
    Fixture fixture;
    (void)state;

    for (uint32_t index = 0; index < 2; index++) {
        fixture_init(&fixture, index);
        assert_true(sweep(&fixture.share));
        write_pages(&fixture.share, 5000);
        assert_true(sweep(&fixture.share));
        assert_int_equal(fixture.share.count_writes, 5000);
        assert_string_equal(fixture.share.wrong, "");
        fixture_clear(&fixture);
    }
}

/* A case damages memory after 5000 writes; the sweep must find it. */
typedef struct Damage {
    const char *name;
    void (*damage)(Fixture *fixture);
    const char *found; /* in what it says */
} Damage;

static void
flip_every_place(Fixture *fixture)
{
    data_page(fixture, DATA_TESTED)[2049] ^= 0x10;
}

static void
flip_last_byte(Fixture *fixture)
{
    data_page(fixture, DATA_TESTED)[PAGE - 1] ^= 1;
}

static void
zero_page(Fixture *fixture)
{
    memset(data_page(fixture, DATA_TESTED), 0, PAGE);
}

static void
swap_pages(Fixture *fixture)
{
    char copy[PAGE];
    memcpy(copy, data_page(fixture, DATA_TESTED), PAGE);
    memcpy(data_page(fixture, DATA_TESTED), data_page(fixture, DATA_TESTED + 1), PAGE);
    memcpy(data_page(fixture, DATA_TESTED + 1), copy, PAGE);
}

static void
dirty_unused_page(Fixture *fixture)
{
    data_page(fixture, 1500)[77] = 1;
}

static void
zero_table(Fixture *fixture)
{
    memset(page_at(&fixture->memory, fixture->share.first_page), 0, PAGE);
}

static void
stray_in_table_end(Fixture *fixture)
{
    page_at(&fixture->memory, fixture->share.first_page + 1)[PAGE - 1] = 1;
}

/* The page as it was before its last write. */
static void
stale_page(Fixture *fixture)
{
    char copy[PAGE];
    memcpy(copy, data_page(fixture, DATA_TESTED), PAGE);
    while (memcmp(copy, data_page(fixture, DATA_TESTED), PAGE) == 0)
        write_pages(&fixture->share, 1);
    memcpy(data_page(fixture, DATA_TESTED), copy, PAGE);
}

/* All of guest memory as it was before the last write: every page fits the table. */
static void
stale_memory(Fixture *fixture)
{
    g_autofree char *copy = g_malloc(PAGES * PAGE);
    for (uint64_t page = 0; page < PAGES; page++)
        memcpy(copy + page * PAGE, page_at(&fixture->memory, page), PAGE);
    write_pages(&fixture->share, 1);
    for (uint64_t page = 0; page < PAGES; page++)
        memcpy(page_at(&fixture->memory, page), copy + page * PAGE, PAGE);
}

/* The same, and the guest wrote on before the sweep came by. */
static void
stale_memory_written_over(Fixture *fixture)
{
    stale_memory(fixture);
    write_pages(&fixture->share, 20000);
}

static const Damage damage_table[] = {
    {"sweep_flipped_bit_is_found", flip_every_place, "word 256 wrong"},
    {"sweep_flipped_last_byte_is_found", flip_last_byte, "word 511 wrong"},
    {"sweep_zeroed_page_is_found", zero_page, "found 0 (all zero)"},
    {"sweep_swapped_pages_are_found", swap_pages, " of page "},
    {"sweep_written_unused_page_is_found", dirty_unused_page, "expected generation 0"},
    {"sweep_zeroed_table_is_found", zero_table, "table of generations"},
    {"sweep_stray_table_entry_is_found", stray_in_table_end, "table of generations"},
    {"sweep_stale_page_is_found", stale_page, "expected generation"},
    {"sweep_stale_memory_is_found", stale_memory, "table of generations"},
    {"sweep_stale_memory_written_over_is_found", stale_memory_written_over, "table of generations"},
};

static void
check_damage(void **state)
{
    const Damage *row = *state;
    Fixture fixture;

    for (uint32_t index = 0; index < 2; index++) {
        fixture_init(&fixture, index);
        write_pages(&fixture.share, 5000);
        row->damage(&fixture);
        assert_false(sweep(&fixture.share));
        if (!strstr(fixture.share.wrong, row->found))
            fail_msg("it says: %s", fixture.share.wrong);
        fixture_clear(&fixture);
    }
}

static void
write_damaged_page_is_refused(void **state)
{
    Fixture fixture;
    (void)state;

    fixture_init(&fixture, 0);
    write_pages(&fixture.share, 1000);
    for (uint64_t data = 0; data < 1000; data++)
        data_page(&fixture, data)[5] ^= 1;
    assert_false(thread_share_write(&fixture.share));
    assert_int_equal(fixture.share.count_writes, 1000);
    fixture_clear(&fixture);
}

static void
copy_memory(Fixture *to, const Fixture *from)
{
    for (unsigned i = 0; i < 2; i++)
        memcpy(to->memory.blocks[i].host_address, from->memory.blocks[i].host_address,
               from->memory.blocks[i].length_bytes);
}

static void
load_saved_state_goes_on(void **state)
{
    Fixture source, destination;
    g_autoptr(GError) error = NULL;
    (void)state;

    fixture_init(&source, 1);
    fixture_init(&destination, 1);
    write_pages(&source.share, 700); /* in the midst of the first filling */
    g_autoptr(GByteArray) bytes = thread_share_save(&source.share);
    copy_memory(&destination, &source);
    assert_true(thread_share_load(&destination.share, THREAD_STATE_VERSION, bytes->data, bytes->len,
                                  &error));
    g_autoptr(GByteArray) again = thread_share_save(&destination.share);
    assert_int_equal(again->len, bytes->len);
    assert_memory_equal(again->data, bytes->data, bytes->len);
    write_pages(&destination.share, 3000);
    assert_true(sweep(&destination.share));
    assert_int_equal(destination.share.count_writes, 3700);
    fixture_clear(&source);
    fixture_clear(&destination);
}

static void
load_state_without_memory_is_found(void **state)
{
    Fixture source, destination;
    (void)state;

    fixture_init(&source, 0);
    fixture_init(&destination, 0);
    write_pages(&source.share, 700);
    g_autoptr(GByteArray) bytes = thread_share_save(&source.share);
    assert_true(
        thread_share_load(&destination.share, THREAD_STATE_VERSION, bytes->data, bytes->len, NULL));
    assert_false(sweep(&destination.share));
    fixture_clear(&source);
    fixture_clear(&destination);
}

static void
assert_load_refused(const Fixture *fixture, uint32_t version, const GByteArray *bytes, guint length)
{
    g_autoptr(GError) error = NULL;
    ThreadShare before = fixture->share, share = fixture->share;

    assert_false(thread_share_load(&share, version, bytes->data, length, &error));
    assert_non_null(error);
    assert_true(error->domain == FAULTLINE_ERROR);
    assert_memory_equal(&share, &before, sizeof share);
}

static void
load_wrong_state_is_refused(void **state)
{
    /* Offset of a field's last byte, and a value out of its range. */
    static const struct {
        unsigned offset;
        uint8_t value;
    } wrong[] = {{3, 1}, {7, 3}, {15, 1}, {23, 1}, {24, 1}, {48, 1}, {56, 1}, {80, '\n'}};
    Fixture fixture;
    (void)state;

    fixture_init(&fixture, 0);
    g_autoptr(GByteArray) bytes = thread_share_save(&fixture.share);
    assert_load_refused(&fixture, 2, bytes, bytes->len);
    assert_load_refused(&fixture, 0, bytes, bytes->len);
    for (guint length = 0; length < bytes->len; length++)
        assert_load_refused(&fixture, 1, bytes, length);
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        uint8_t before = bytes->data[wrong[i].offset];
        bytes->data[wrong[i].offset] = wrong[i].value;
        assert_load_refused(&fixture, 1, bytes, bytes->len);
        bytes->data[wrong[i].offset] = before;
    }
    memset(bytes->data + 40, 0, 8); /* random */
    assert_load_refused(&fixture, 1, bytes, bytes->len);
    fixture_clear(&fixture);
}

static Machine *
make_guest(bool incoming)
{
    const MachineOptions options = {.memory_bytes = 8u << 20,
                                    .cpus = 3,
                                    .memory = MACHINE_MEMORY_PRIVATE,
                                    .incoming = incoming};
    g_autoptr(GError) error = NULL;
    Machine *machine = machine_threads.make(&options, &error);

    if (!machine)
        fail_msg("%s", error->message);
    return machine;
}

static uint64_t
count_passes(const char *verdict)
{
    return g_ascii_strtoull(strrchr(verdict, ',') + 2, NULL, 10);
}

/* Waits, as long as it takes, until the verdict counts more than `passes`. */
static const char *
wait_for_passes(Machine *machine, uint64_t passes)
{
    while (true) {
        const char *verdict = machine_threads.verdict(machine);
        if (!g_str_has_prefix(verdict, "ok") || count_passes(verdict) > passes)
            return verdict;
        g_usleep(1000);
    }
}

static void
guest_that_runs_writes_and_paused_does_not(void **state)
{
    Machine *machine = make_guest(false);
    const FaultlineGuest *guest = machine_threads.guest;
    unsigned count;
    (void)state;

    const FaultlineBlock *block = machine_threads.blocks(machine, &count);
    assert_int_equal(count, 1);
    for (unsigned i = 0; i < 3; i++)
        assert_true(guest->vcpu_thread(machine, i) > 0);
    assert_int_equal(guest->vcpu_thread(machine, 3), 0);
    assert_true(guest->resume(machine, NULL));
    assert_true(g_str_has_prefix(wait_for_passes(machine, 1), "ok"));

    assert_true(guest->pause(machine, NULL));
    assert_true(guest->pause(machine, NULL));
    g_autofree char *copy = g_memdup2(block->host_address, block->length_bytes);
    g_autofree char *verdict = g_strdup(machine_threads.verdict(machine));
    g_usleep(50000);
    assert_memory_equal(copy, block->host_address, block->length_bytes);
    assert_string_equal(verdict, machine_threads.verdict(machine));

    assert_true(guest->resume(machine, NULL));
    wait_for_passes(machine, count_passes(verdict) + 1);
    assert_true(guest->pause(machine, NULL));
    assert_int_not_equal(memcmp(copy, block->host_address, block->length_bytes), 0);
    machine_threads.free(machine);
}

static void
guest_with_wrong_byte_says_bad(void **state)
{
    Machine *machine = make_guest(false);
    const FaultlineGuest *guest = machine_threads.guest;
    unsigned count;
    (void)state;

    char *memory = machine_threads.blocks(machine, &count)->host_address;
    assert_true(guest->resume(machine, NULL));
    wait_for_passes(machine, 1);
    assert_true(guest->pause(machine, NULL));
    memory[(2000 + 1) * PAGE - 1] ^= 1;
    assert_true(guest->resume(machine, NULL));
    assert_true(g_str_has_prefix(wait_for_passes(machine, 1000000), "bad: page 2000 "));
    assert_true(guest->pause(machine, NULL));
    machine_threads.free(machine);
}

static void
guest_incoming_without_state_does_not_start(void **state)
{
    Machine *machine = make_guest(true);
    g_autoptr(GError) error = NULL;
    (void)state;

    assert_false(machine_threads.guest->resume(machine, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER));
    machine_threads.free(machine);
}

static void
guest_unknown_section_is_refused(void **state)
{
    static const struct {
        const char *name;
        uint32_t instance;
    } sections[] = {{"faultline/thread", 3}, {"faultline/vcpu", 0}, {"", 0}};
    Machine *machine = make_guest(true);
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(sections); i++) {
        g_autoptr(GError) error = NULL;
        assert_false(machine_threads.guest->load_state(machine, sections[i].name,
                                                       sections[i].instance, 1, "", 0, &error));
        assert_non_null(error);
    }
    machine_threads.free(machine);
}

static void
make_too_little_memory_is_refused(void **state)
{
    MachineOptions options = {.memory_bytes = 4 * PAGE, .cpus = 3};
    g_autoptr(GError) error = NULL;
    (void)state;

    assert_null(machine_threads.make(&options, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
}

int
main(void)
{
    struct CMUnitTest tests[16 + G_N_ELEMENTS(damage_table)] = {
        cmocka_unit_test(sweep_untouched_memory_is_right),
        cmocka_unit_test(write_damaged_page_is_refused),
        cmocka_unit_test(load_saved_state_goes_on),
        cmocka_unit_test(load_state_without_memory_is_found),
        cmocka_unit_test(load_wrong_state_is_refused),
        cmocka_unit_test(guest_that_runs_writes_and_paused_does_not),
        cmocka_unit_test(guest_with_wrong_byte_says_bad),
        cmocka_unit_test(guest_incoming_without_state_does_not_start),
        cmocka_unit_test(guest_unknown_section_is_refused),
        cmocka_unit_test(make_too_little_memory_is_refused),
    };
    unsigned count = 10;

    for (unsigned i = 0; i < G_N_ELEMENTS(damage_table); i++)
        tests[count++] = (struct CMUnitTest){.name = damage_table[i].name,
                                             .test_func = check_damage,
                                             .initial_state = (void *)&damage_table[i]};
    return _cmocka_run_group_tests("kvm_threads", tests, count, NULL, NULL);
}
