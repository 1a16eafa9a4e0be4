/* SPDX-License-Identifier: MIT */
/* See memory.h. What the KVM guest keeps where: kvm/guest/parameters.inc and guest.asm. */
#include "tests/chaos/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGE_BYTES     4096u
#define PAGE_WORDS     512u
#define BLOCKS_MAX     4
#define PARAMETERS     0x500u
#define P_CPUS         4u
#define P_PAGES        32u
#define CPU_RECORDS    0x20000u
#define CPU_RECORD     256u
#define C_FILLED       8u
#define C_GENERATION   48u
#define WORKING_SET    0x200000u
#define VALUE_PAGE     UINT64_C(0x9e3779b97f4a7c15)
#define VALUE_STEP     UINT64_C(0x5851f42d)
#define MOVING_OFFSETS 255u

typedef struct Image {
    char names[BLOCKS_MAX][64];
    uint64_t lengths[BLOCKS_MAX];
    uint8_t *blocks[BLOCKS_MAX];
    unsigned count;
} Image;

static void
image_clear(Image *image)
{
    for (unsigned i = 0; i < image->count; i++)
        g_free(image->blocks[i]);
    image->count = 0;
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Image, image_clear)

static bool
read_block(Side *side, int fd, uint64_t address, uint8_t *bytes, uint64_t length, GError **error)
{
    for (uint64_t at = 0; at < length;) {
        ssize_t count = pread(fd, bytes + at, length - at, (off_t)(address + at));
        if (count <= 0) {
            g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED,
                        "%s: cannot read guest memory at 0x%" G_GINT64_MODIFIER "x: %s", side->role,
                        address + at, g_strerror(errno));
            return false;
        }
        at += (uint64_t)count;
    }
    return true;
}

/* A copy of all blocks that the program's lines "ram: NAME 0xADDRESS 0xLENGTH" tell of. */
static bool
image_read(Side *side, Image *ret_image, GError **error)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/mem", (int)side->pid);
    g_autofree char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool good = fd >= 0 && g_file_get_contents(side->output, &text, NULL, NULL);

    if (!good)
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED, "%s: cannot open %s: %s", side->role,
                    path, g_strerror(errno));
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);
    for (unsigned i = 0; good && lines[i] && ret_image->count < BLOCKS_MAX; i++) {
        unsigned at = ret_image->count;
        uint64_t address, length;
        if (sscanf(lines[i], "ram: %63s 0x%" G_GINT64_MODIFIER "x 0x%" G_GINT64_MODIFIER "x",
                   ret_image->names[at], &address, &length) != 3)
            continue;
        ret_image->lengths[at] = length;
        ret_image->blocks[at] = g_malloc(length);
        ret_image->count++;
        good = read_block(side, fd, address, ret_image->blocks[at], length, error);
    }
    if (fd >= 0)
        close(fd);
    return good;
}

bool
memory_digest(Side *side, uint64_t *ret_digest, GError **error)
{
    g_auto(Image) image = {.count = 0};
    uint64_t digest = 0;

    if (!image_read(side, &image, error))
        return false;
    for (unsigned i = 0; i < image.count; i++)
        for (uint64_t at = 0; at < image.lengths[i]; at += sizeof(uint64_t)) {
            uint64_t word;
            memcpy(&word, image.blocks[i] + at, sizeof word);
            digest = (digest ^ word) * UINT64_C(0x100000001b3);
            digest ^= digest >> 29;
        }
    *ret_digest = digest;
    return true;
}

bool
memory_compare(Side *source, Side *destination, GError **error)
{
    g_auto(Image) here = {.count = 0};
    g_auto(Image) there = {.count = 0};
    bool any = false;

    if (!image_read(source, &here, error) || !image_read(destination, &there, error))
        return false;
    for (unsigned i = 0; i < here.count; i++) {
        for (uint64_t at = 0; at < here.lengths[i]; at++) {
            any = any || here.blocks[i][at];
            if (here.blocks[i][at] == there.blocks[i][at])
                continue;
            g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED,
                        "block %s differs at 0x%" G_GINT64_MODIFIER
                        "x: 0x%02x at the source, 0x%02x at the destination",
                        here.names[i], at, here.blocks[i][at], there.blocks[i][at]);
            return false;
        }
    }
    if (!any)
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED,
                    "all memory is zero: the comparison would show nothing");
    return any;
}

/* ---- The KVM guest --------------------------------------------------------------------------- */

static uint64_t
word_at(const Image *image, uint64_t address)
{
    uint64_t word;
    memcpy(&word, image->blocks[0] + address, sizeof word);
    return word;
}

static uint32_t
half_at(const Image *image, uint64_t address)
{
    uint32_t half;
    memcpy(&half, image->blocks[0] + address, sizeof half);
    return half;
}

/* What a page of this generation holds at a word. */
static uint64_t
value_at(uint64_t page, uint64_t generation, unsigned word)
{
    uint64_t base = page * VALUE_PAGE;

    if (word == 0 || word == 2048 / 8 || word == 4088 / 8)
        return base + generation * VALUE_STEP;
    /* The last generation whose moving offset this was. */
    if (word > MOVING_OFFSETS)
        return 0;
    uint64_t slot = word - 1, now = generation % MOVING_OFFSETS;
    uint64_t back = (now + MOVING_OFFSETS - slot) % MOVING_OFFSETS;
    return back > generation ? 0 : base + (generation - back) * VALUE_STEP;
}

static bool
page_is(const Image *image, uint64_t page, uint64_t generation)
{
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        if (word_at(image, WORKING_SET + page * PAGE_BYTES + i * 8) !=
            value_at(page, generation, i))
            return false;
    return true;
}

/* The one page of a CPU that was stopped between its four writes. */
static bool
page_is_between(const Image *image, uint64_t page, uint64_t generation)
{
    for (unsigned i = 0; i < PAGE_WORDS; i++) {
        uint64_t word = word_at(image, WORKING_SET + page * PAGE_BYTES + i * 8);
        if (word != value_at(page, generation, i) && word != value_at(page, generation + 1, i))
            return false;
    }
    return true;
}

static bool
refuse_page(const Image *image, Side *side, uint64_t page, uint64_t generation, GError **error)
{
    unsigned i = 0;

    while (i < PAGE_WORDS - 1 &&
           word_at(image, WORKING_SET + page * PAGE_BYTES + i * 8) == value_at(page, generation, i))
        i++;
    uint64_t found = word_at(image, WORKING_SET + page * PAGE_BYTES);
    g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED,
                "%s: page %" G_GUINT64_FORMAT " is neither of generation %" G_GUINT64_FORMAT
                " nor of the next: word %u is 0x%" G_GINT64_MODIFIER
                "x; its first word is of generation %" G_GINT64_FORMAT,
                side->role, page, generation, i,
                word_at(image, WORKING_SET + page * PAGE_BYTES + i * 8),
                (int64_t)(found - page * VALUE_PAGE) / (int64_t)VALUE_STEP);
    return false;
}

static bool
check_share(const Image *image, Side *side, unsigned cpu, uint64_t first, uint64_t count,
            GError **error)
{
    uint64_t generation = word_at(image, CPU_RECORDS + cpu * CPU_RECORD + C_GENERATION);
    unsigned count_between = 0;

    for (uint64_t page = first; page < first + count; page++) {
        if (page_is(image, page, generation) || page_is(image, page, generation + 1))
            continue;
        if (!page_is_between(image, page, generation) || ++count_between > 1)
            return refuse_page(image, side, page, generation, error);
    }
    return true;
}

bool
memory_check_kvm(Side *side, GError **error)
{
    g_auto(Image) image = {.count = 0};

    if (!image_read(side, &image, error))
        return false;
    uint64_t pages = word_at(&image, PARAMETERS + P_PAGES);
    unsigned cpus = half_at(&image, PARAMETERS + P_CPUS);
    if (cpus == 0 || pages == 0 || WORKING_SET + pages * PAGE_BYTES > image.lengths[0]) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED,
                    "%s: the guest's parameters are damaged", side->role);
        return false;
    }
    for (unsigned cpu = 0; cpu < cpus; cpu++) {
        uint64_t first = pages / cpus * cpu;
        uint64_t count = cpu + 1 == cpus ? pages - first : pages / cpus;
        if (!check_share(&image, side, cpu, first, count, error))
            return false;
    }
    return true;
}

bool
memory_is_filled(Side *side, bool is_kvm)
{
    g_auto(Image) image = {.count = 0};

    if (!image_read(side, &image, NULL) || !image.count)
        return false;
    if (!is_kvm) /* in order: the last page is the last to be written */
        return word_at(&image, image.lengths[0] - PAGE_BYTES + 8) != 0;
    for (unsigned cpu = 0; cpu < half_at(&image, PARAMETERS + P_CPUS); cpu++)
        if (!word_at(&image, CPU_RECORDS + cpu * CPU_RECORD + C_FILLED))
            return false;
    return half_at(&image, PARAMETERS + P_CPUS) != 0;
}
