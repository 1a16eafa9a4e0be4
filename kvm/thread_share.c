/* SPDX-License-Identifier: MIT */
/*
 * The content of a share's pages: writing the next generation, checking, the sweep, the digests.
 * Runs on the guest thread that owns the share, and touches guest memory only by the guest mapping,
 * so that at a destination it stops on missing pages like a vCPU does. Saving and loading:
 * thread_state.c.
 */
#include "kvm/thread_share.h"

#include <string.h>

#define PAGE_WORDS     (FAULTLINE_PAGE_BYTES / sizeof(uint64_t))
#define TABLE_ENTRIES  (FAULTLINE_PAGE_BYTES / sizeof(uint32_t))
#define PATTERN_STRIDE 0x9e3779b97f4a7c15u /* odd: no two words of a page are equal */

static uint64_t
mix(uint64_t page, uint32_t generation)
{
    uint64_t x = (page << 32) ^ (page >> 32) ^ generation;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* What a page adds to the digest of its table page; nothing before it was written. */
static uint64_t
digest_part(uint64_t page, uint32_t generation)
{
    return generation ? mix(page + 1, generation) : 0;
}

static uint64_t
memory_pages(const ThreadMemory *memory)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < memory->count_blocks; i++)
        pages += memory->blocks[i].length_bytes / FAULTLINE_PAGE_BYTES;
    return pages;
}

/* page: number over all blocks. */
static void *
page_address(const ThreadMemory *memory, uint64_t page)
{
    const FaultlineBlock *block = memory->blocks;
    uint64_t offset = page * FAULTLINE_PAGE_BYTES;

    while (offset >= block->length_bytes) {
        offset -= block->length_bytes;
        block++;
        g_assert(block < memory->blocks + memory->count_blocks);
    }
    return (char *)block->host_address + offset;
}

static uint64_t
first_data_page(const ThreadShare *share)
{
    return share->first_page + share->count_tables;
}

/* Table entry of data page number `data` of the share (0: its first). */
static uint32_t *
table_entry(const ThreadShare *share, uint64_t data)
{
    uint32_t *table = page_address(share->memory, share->first_page + data / TABLE_ENTRIES);
    return table + data % TABLE_ENTRIES;
}

static void
count_one(uint64_t *counter)
{
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

void
thread_share_init(ThreadShare *share, const ThreadMemory *memory, uint32_t index,
                  uint32_t count_shares, uint64_t working_bytes, uint64_t write_rate)
{
    uint64_t pages = memory_pages(memory);
    uint64_t each = pages / count_shares;
    uint64_t working = working_bytes / FAULTLINE_PAGE_BYTES / count_shares;

    memset(share, 0, sizeof *share);
    share->memory = memory;
    share->index = index;
    share->count_shares = count_shares;
    share->first_page = index * each;
    share->count_pages = index + 1 == count_shares ? pages - index * each : each;
    g_assert(share->count_pages >= 2);
    share->count_tables = (share->count_pages + TABLE_ENTRIES) / (TABLE_ENTRIES + 1);
    share->count_working = share->count_pages - share->count_tables;
    if (working && working < share->count_working)
        share->count_working = working;
    share->write_rate = write_rate;
    share->digests = g_new0(uint64_t, share->count_tables);
    share->random = mix(index + 1, 1) | 1;
}

void
thread_share_clear(ThreadShare *share)
{
    g_clear_pointer(&share->digests, g_free);
}

static void
fill_page(uint64_t *words, uint64_t page, uint32_t generation)
{
    uint64_t base = mix(page, generation);

    words[0] = page;
    words[1] = generation;
    for (uint64_t i = 2; i < PAGE_WORDS; i++)
        words[i] = base + i * PATTERN_STRIDE;
}

static bool
page_is_zero(const uint64_t *words)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        any |= words[i];
    return any == 0;
}

static bool
page_is_right(const uint64_t *words, uint64_t page, uint32_t generation)
{
    if (generation == 0)
        return page_is_zero(words);

    uint64_t base = mix(page, generation);
    uint64_t wrong = (words[0] ^ page) | (words[1] ^ generation);
    for (uint64_t i = 2; i < PAGE_WORDS; i++)
        wrong |= words[i] ^ (base + i * PATTERN_STRIDE);
    return wrong == 0;
}

static void
describe_wrong(ThreadShare *share, const uint64_t *words, uint64_t page, uint32_t generation)
{
    int length =
        g_snprintf(share->wrong, sizeof share->wrong,
                   "page %" G_GUINT64_FORMAT " expected generation %u found ", page, generation);
    char *rest = share->wrong + length;
    size_t room = sizeof share->wrong - (size_t)length;
    uint64_t base = mix(page, generation);
    unsigned word = 2;

    if (page_is_zero(words)) {
        g_snprintf(rest, room, "0 (all zero)");
    } else if (words[0] != page || words[1] != generation) {
        g_snprintf(rest, room, "%" G_GUINT64_FORMAT " of page %" G_GUINT64_FORMAT, words[1],
                   words[0]);
    } else {
        while (word < PAGE_WORDS - 1 && words[word] == base + word * PATTERN_STRIDE)
            word++;
        g_snprintf(rest, room, "it with word %u wrong", word);
    }
}

static bool
check_data(ThreadShare *share, uint64_t data)
{
    uint64_t page = first_data_page(share) + data;
    const uint64_t *words = page_address(share->memory, page);
    uint32_t generation = *table_entry(share, data);

    count_one(&share->count_checks);
    if (page_is_right(words, page, generation))
        return true;
    describe_wrong(share, words, page, generation);
    return false;
}

static bool
check_table(ThreadShare *share, uint64_t table)
{
    const uint32_t *entries = page_address(share->memory, share->first_page + table);
    uint64_t page = first_data_page(share) + table * TABLE_ENTRIES;
    uint64_t digest = 0;

    count_one(&share->count_checks);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++)
        digest += digest_part(page + i, entries[i]);
    if (digest == share->digests[table])
        return true;
    g_snprintf(share->wrong, sizeof share->wrong,
               "page %" G_GUINT64_FORMAT
               " (table of generations) expected digest %016" G_GINT64_MODIFIER
               "x found %016" G_GINT64_MODIFIER "x",
               share->first_page + table, share->digests[table], digest);
    return false;
}

static uint64_t
next_data_page(ThreadShare *share)
{
    if (share->count_full < share->count_working)
        return share->count_full++;
    share->random ^= share->random << 13;
    share->random ^= share->random >> 7;
    share->random ^= share->random << 17;
    return share->random % share->count_working;
}

bool
thread_share_write(ThreadShare *share)
{
    uint64_t data = next_data_page(share);
    uint64_t page = first_data_page(share) + data;

    if (!check_data(share, data))
        return false;

    uint32_t *entry = table_entry(share, data);
    uint32_t before = *entry;
    uint32_t after = before == UINT32_MAX ? 1 : before + 1;

    fill_page(page_address(share->memory, page), page, after);
    *entry = after;
    share->digests[data / TABLE_ENTRIES] += digest_part(page, after) - digest_part(page, before);
    count_one(&share->count_writes);
    return true;
}

bool
thread_share_check(ThreadShare *share)
{
    uint64_t at = share->sweep;
    bool right = at < share->count_tables ? check_table(share, at)
                                          : check_data(share, at - share->count_tables);

    share->sweep = at + 1 == share->count_pages ? 0 : at + 1;
    count_one(&share->swept_pages);
    return right;
}
