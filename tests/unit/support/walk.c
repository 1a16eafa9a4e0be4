/* SPDX-License-Identifier: MIT */
/*
 * The main and the urgent channel of a recorded migration, element by element. One thread.
 */
#include <string.h>

#include "tests/unit/support/walk.h"

Walk *
walk_new(void)
{
    Walk *walk = g_new0(Walk, 1);

    walk->sections = g_array_new(FALSE, FALSE, sizeof(WalkSection));
    return walk;
}

void
walk_free(Walk *walk)
{
    for (unsigned i = 0; i < walk->count_blocks; i++) {
        g_free(walk->blocks[i].held);
        g_free(walk->blocks[i].image);
    }
    g_array_unref(walk->sections);
    g_free(walk);
}

bool
walk_fail(GError **error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE, text);
    return false;
}

WalkBlock *
walk_find_block(Walk *walk, const char *name)
{
    for (unsigned i = 0; i < walk->count_blocks; i++)
        if (strcmp(walk->blocks[i].name, name) == 0)
            return &walk->blocks[i];
    return NULL;
}

bool
walk_is_whole(const Walk *walk)
{
    for (unsigned i = 0; i < walk->count_blocks; i++)
        for (uint64_t page = 0; page < walk->blocks[i].count_pages; page++)
            if (!walk->blocks[i].held[page])
                return false;
    return walk->count_blocks > 0;
}

bool
walk_store(Walk *walk, WalkBlock *block, uint64_t offset, GError **error)
{
    uint64_t page = offset / STREAM_PAGE_BYTES;

    if (page >= block->count_pages)
        return walk_fail(error, "page %s+0x%" G_GINT64_MODIFIER "x is outside", block->name,
                         offset);
    if (walk->phase >= WALK_LISTENING) {
        if (block->held[page])
            return walk_fail(error, "page %s+0x%" G_GINT64_MODIFIER "x sent twice in postcopy",
                             block->name, offset);
        walk->count_postcopy++;
    }
    block->held[page] = 1;
    return true;
}

/* OK goes on, MORE is the end of a cut stream or an error, BAD an error. */
static bool
advance(Walk *walk, WalkBytes *in, StreamResult result, size_t length, GError **error)
{
    if (result == STREAM_BAD)
        return false;
    if (result == STREAM_MORE) {
        g_assert(length > in->length - in->at && length <= STREAM_ITEM_MAX);
        walk->reached_cut = walk->is_cut;
        return walk->is_cut || walk_fail(error, "stream ends at %zu", in->at);
    }
    g_assert(length > 0 && length <= in->length - in->at);
    in->at += length;
    return true;
}

#define REST(in) (in)->bytes + (in)->at, (in)->length - (in)->at

static bool
walk_block_list(Walk *walk, WalkBytes *in, uint64_t total, GError **error)
{
    size_t length = 0;

    while (total > 0) {
        StreamBlock block;
        StreamResult result = stream_decode_block(REST(in), false, &block, &length, error);
        if (!advance(walk, in, result, length, error) || walk->reached_cut)
            return walk->reached_cut;
        if (block.length > total || block.length > WALK_BLOCK_BYTES_MAX ||
            walk->count_blocks == WALK_BLOCKS_MAX || walk_find_block(walk, block.name))
            return walk_fail(error, "block list: %s", block.name);
        WalkBlock *own = &walk->blocks[walk->count_blocks++];
        g_strlcpy(own->name, block.name, sizeof own->name);
        own->count_pages = block.length / STREAM_PAGE_BYTES;
        own->held = g_malloc0(own->count_pages);
        if (walk->keeps_image)
            own->image = g_malloc0(block.length);
        total -= block.length;
    }
    return true;
}

static void
keep_page(WalkBlock *block, const StreamRecord *record)
{
    if (record->flag == STREAM_RAM_ZERO)
        memset(block->image + record->offset, 0, STREAM_PAGE_BYTES);
    else
        memcpy(block->image + record->offset, record->page, STREAM_PAGE_BYTES);
}

/* Of one page or a run; of a run of pages the bytes behind the record as well. */
static bool
walk_pages(Walk *walk, WalkBytes *in, const StreamRecord *record, WalkBlock **last, GError **error)
{
    bool is_run = record->count_pages > 1;
    size_t behind = is_run && record->flag == STREAM_RAM_PAGE
                        ? record->count_pages * (size_t)STREAM_PAGE_BYTES
                        : 0;

    if (!record->is_continue)
        *last = walk_find_block(walk, record->name);
    if (!*last)
        return walk_fail(error, "no block for record of '%s'", record->name);
    if (behind > in->length - in->at)
        return walk_fail(error, "stream ends in a run");
    in->at += behind;
    walk->count_runs += is_run;
    *(record->flag == STREAM_RAM_ZERO ? &walk->count_zero : &walk->count_page) +=
        record->count_pages;
    for (uint64_t i = 0; i < record->count_pages; i++)
        if (!walk_store(walk, *last, record->offset + i * STREAM_PAGE_BYTES, error))
            return false;
    if ((*last)->image && !is_run)
        keep_page(*last, record);
    return true;
}

/* Records up to EOS. */
static bool
walk_records(Walk *walk, WalkBytes *in, StreamType type, GError **error)
{
    for (unsigned count = 0;; count++) {
        StreamRecord record;
        size_t length = 0;
        StreamResult result =
            stream_decode_record(REST(in), "main", walk->takes_runs, &record, &length, error);
        if (!advance(walk, in, result, length, error) || walk->reached_cut)
            return walk->reached_cut;
        if ((record.flag == STREAM_RAM_MEM_SIZE) != (type == STREAM_START && count == 0))
            return walk_fail(error, "block list is not, or not only, first in START");
        switch (record.flag) {
        case STREAM_RAM_EOS:
            return true;
        case STREAM_RAM_MEM_SIZE:
            if (!walk_block_list(walk, in, record.offset, error))
                return false;
            break;
        case STREAM_RAM_ZERO:
        case STREAM_RAM_PAGE:
            if (type == STREAM_START)
                return walk_fail(error, "page in START");
            if (!walk_pages(walk, in, &record, &walk->last_main, error))
                return false;
            break;
        case STREAM_RAM_MULTIFD_FLUSH:
            if (walk->phase >= WALK_LISTENING || !walk_sync_multifd(walk, error))
                return error && *error ? false : walk_fail(error, "flush in postcopy");
            break;
        default:
            return walk_fail(error, "record 0x%x", (unsigned)record.flag);
        }
    }
}

bool
walk_urgent(Walk *walk, const uint8_t *bytes, size_t length_bytes, GError **error)
{
    WalkBytes in = {bytes, length_bytes, 0};

    walk->reached_cut = false;
    walk->last_urgent = NULL;
    while (in.at < in.length) {
        StreamRecord record;
        size_t length = 0;
        StreamResult result =
            stream_decode_record(REST(&in), "urgent", walk->takes_runs, &record, &length, error);
        if (!advance(walk, &in, result, length, error))
            return false;
        if (walk->reached_cut)
            return true;
        if (record.flag == STREAM_RAM_EOS)
            return in.at == in.length || walk_fail(error, "bytes behind EOS of urgent channel");
        if (record.flag != STREAM_RAM_ZERO && record.flag != STREAM_RAM_PAGE)
            return walk_fail(error, "record 0x%x on urgent channel", (unsigned)record.flag);
        walk->count_urgent++;
        if (!walk_pages(walk, &in, &record, &walk->last_urgent, error))
            return false;
    }
    return true;
}

static const WalkSection *
find_section(const Walk *walk, uint32_t id)
{
    for (unsigned i = 0; i < walk->sections->len; i++) {
        const WalkSection *section = &g_array_index(walk->sections, WalkSection, i);
        if (section->id == id)
            return section;
    }
    return NULL;
}

/* Whether an element, or the end, may begin here. */
static bool
may_follow(const Walk *walk, const uint8_t *at, size_t left)
{
    StreamElement next;
    size_t length;

    if (left == 0)
        return true;
    if (stream_decode_element(at, left, &next, &length, NULL) != STREAM_OK)
        return false;
    if (next.type == STREAM_EOF)
        return left == 1 || at[1] == STREAM_VMDESCRIPTION;
    if (next.type == STREAM_PART || next.type == STREAM_END)
        return find_section(walk, next.section_id) != NULL;
    return next.type == STREAM_FULL || next.type == STREAM_COMMAND;
}

/* A FULL section has no length: it ends where its footer is followed by an element. */
static bool
walk_full(Walk *walk, WalkBytes *in, WalkSection *section, GError **error)
{
    for (size_t end = in->at; end + 5 <= in->length; end++) {
        size_t length = 0;
        if (in->bytes[end] != STREAM_FOOTER ||
            stream_decode_footer(in->bytes + end, in->length - end, section->id, section->name,
                                 &length, NULL) != STREAM_OK ||
            !may_follow(walk, in->bytes + end + 5, in->length - end - 5))
            continue;
        section->length = end - in->at;
        if (strcmp(section->name, "globalstate") == 0 &&
            (stream_decode_globalstate(REST(in), &walk->was_running, &length, error) != STREAM_OK ||
             length != section->length))
            return walk_fail(error && *error ? NULL : error, "globalstate");
        in->at = end;
        return true;
    }
    walk->reached_cut = walk->is_cut;
    return walk->is_cut || walk_fail(error, "section %s has no end", section->name);
}

static bool
walk_section(Walk *walk, WalkBytes *in, const StreamElement *element, GError **error)
{
    const WalkSection *known = find_section(walk, element->section_id);
    WalkSection section = {element->section_id, element->instance, "", 0};
    size_t length = 0;

    if (element->type == STREAM_START || element->type == STREAM_FULL) {
        g_strlcpy(section.name, element->name, sizeof section.name);
        if (known)
            return walk_fail(error, "section id %u of %s is taken", section.id, section.name);
    } else if (known) {
        section = *known;
    }
    bool is_ram = strcmp(section.name, "ram") == 0;
    if (is_ram != (element->type != STREAM_FULL))
        return walk_fail(error, "section %u '%s' of type %u", section.id, section.name,
                         element->type);
    if (element->type == STREAM_START && (element->version != 4 || element->instance != 0))
        return walk_fail(error, "ram is not version 4, instance 0");
    if (is_ram && (walk->has_ended || walk->has_started == (element->type == STREAM_START)))
        return walk_fail(error, "ram section of type %u out of order", element->type);
    if (!is_ram && !walk->has_ended && walk->phase != WALK_LISTENING)
        return walk_fail(error, "device %s before the end of ram", section.name);

    walk->has_started |= element->type == STREAM_START;
    walk->has_ended |= element->type == STREAM_END;
    if (is_ram ? !walk_records(walk, in, element->type, error)
               : !walk_full(walk, in, &section, error))
        return false;
    if (walk->reached_cut)
        return true;
    if (!known)
        g_array_append_val(walk->sections, section);
    StreamResult result = stream_decode_footer(REST(in), section.id, section.name, &length, error);
    return advance(walk, in, result, length, error);
}

static bool
walk_ping(Walk *walk, uint32_t value, GError **error)
{
    static const struct {
        uint32_t value;
        WalkPhase phase;
    } legal[] = {{1, WALK_NONE},
                 {2, WALK_DISCARD},
                 {3, WALK_LISTENING},
                 {0x42, WALK_LISTENING},
                 {4, WALK_RUNNING},
                 {STREAM_PING_SETTLED, WALK_ADVISE},
                 {STREAM_PING_COMMIT, WALK_NONE},
                 {STREAM_PING_COMMIT, WALK_ADVISE}};

    if (!walk->has_return_path || walk->count_pings == WALK_PINGS_MAX)
        return walk_fail(error, "PING 0x%x without a return path, or too many", value);
    walk->pings[walk->count_pings++] = value;
    if (((value & ~STREAM_FEATURES) == STREAM_HELLO ||
         (value & STREAM_HELLO_MASK) == STREAM_PING_AGREE) &&
        walk->phase == WALK_NONE)
        return true;
    for (unsigned i = 0; i < G_N_ELEMENTS(legal); i++)
        if (legal[i].value == value && legal[i].phase == walk->phase)
            return true;
    return walk_fail(error, "PING 0x%x in phase %u", value, walk->phase);
}

static bool walk_elements(Walk *walk, WalkBytes *in, bool is_package, GError **error);

static bool
walk_package(Walk *walk, WalkBytes *in, uint32_t length, GError **error)
{
    if (length > in->length - in->at)
        return walk_fail(error, "package of %u bytes is cut", length);
    WalkBytes package = {in->bytes + in->at, length, 0};
    in->at += length;
    return walk_elements(walk, &package, true, error);
}

static bool
walk_bitmap_command(Walk *walk, const StreamElement *element, GError **error)
{
    char name[STREAM_NAME_MAX + 1];

    if (!stream_parse_bitmap_name(element, name, error))
        return false;
    if (walk->count_asked == walk->count_bitmaps ||
        strcmp(walk->blocks[walk->count_asked].name, name) != 0)
        return walk_fail(error, "bitmap of %s is asked out of order", name);
    walk->count_asked++;
    return true;
}

/* command -> phases in which it may come (bits) and the phase behind it (-1: the same) */
static const struct {
    unsigned phases;
    int next;
} command_rules[] = {
    [STREAM_COMMAND_OPEN_RETURN_PATH] = {1 << WALK_NONE, -1},
    [STREAM_COMMAND_PING] = {0x1f, -1},
    [STREAM_COMMAND_POSTCOPY_ADVISE] = {1 << WALK_NONE, WALK_ADVISE},
    [STREAM_COMMAND_POSTCOPY_LISTEN] = {1 << WALK_ADVISE | 1 << WALK_DISCARD, WALK_LISTENING},
    [STREAM_COMMAND_POSTCOPY_RUN] = {1 << WALK_LISTENING, WALK_RUNNING},
    [STREAM_COMMAND_POSTCOPY_RAM_DISCARD] = {1 << WALK_ADVISE | 1 << WALK_DISCARD, WALK_DISCARD},
    [STREAM_COMMAND_DISCARD_WORDS] = {1 << WALK_ADVISE | 1 << WALK_DISCARD, WALK_DISCARD},
    [STREAM_COMMAND_PACKAGED] = {1 << WALK_ADVISE | 1 << WALK_DISCARD, -1},
    [STREAM_COMMAND_POSTCOPY_RESUME] = {1 << WALK_RUNNING, -1},
    [STREAM_COMMAND_RECV_BITMAP] = {1 << WALK_RUNNING, -1},
    [STREAM_COMMAND_SWITCHOVER_START] = {1 << WALK_NONE | 1 << WALK_ADVISE, -1},
};

static bool
walk_command(Walk *walk, WalkBytes *in, const StreamElement *element, bool is_package,
             GError **error)
{
    StreamAdvise advise;
    const char *name = stream_command_name(element->command);
    bool is_inner = element->command == STREAM_COMMAND_POSTCOPY_LISTEN ||
                    element->command == STREAM_COMMAND_POSTCOPY_RUN;

    if (element->command >= G_N_ELEMENTS(command_rules)) /* of a feature that no recording has */
        return walk_fail(error, "command %s in a recording", name);
    if (!(command_rules[element->command].phases & 1u << walk->phase) ||
        (element->command != STREAM_COMMAND_PING && is_inner != is_package))
        return walk_fail(error, "command %s in phase %u", name, walk->phase);
    if (command_rules[element->command].next >= 0)
        walk->phase = (WalkPhase)command_rules[element->command].next;
    switch (element->command) {
    case STREAM_COMMAND_OPEN_RETURN_PATH:
        if (walk->has_return_path || walk->has_started)
            return walk_fail(error, "OPEN_RETURN_PATH again, or late");
        walk->has_return_path = true;
        return true;
    case STREAM_COMMAND_PING:
        return walk_ping(walk, stream_parse_be32(element), error);
    case STREAM_COMMAND_POSTCOPY_ADVISE:
        if (walk->has_started)
            return walk_fail(error, "ADVISE behind START");
        return stream_parse_advise(element, &advise, error);
    case STREAM_COMMAND_POSTCOPY_RAM_DISCARD:
        walk->last_main = NULL;
        return walk_discard(walk, element, error);
    case STREAM_COMMAND_DISCARD_WORDS:
        walk->last_main = NULL;
        return walk_discard_words(walk, element, error);
    case STREAM_COMMAND_PACKAGED:
        return walk_package(walk, in, stream_parse_be32(element), error);
    case STREAM_COMMAND_RECV_BITMAP:
        return walk_bitmap_command(walk, element, error);
    case STREAM_COMMAND_POSTCOPY_RESUME:
        return (walk->is_resumed && walk->count_asked == walk->count_blocks) ||
               walk_fail(error, "RESUME before all bitmaps");
    case STREAM_COMMAND_SWITCHOVER_START:
        if (walk->has_switched || !walk->has_started || walk->has_ended)
            return walk_fail(error, "SWITCHOVER_START out of order");
        walk->has_switched = true;
        return true;
    default:
        return true;
    }
}

static bool
walk_eof(Walk *walk, WalkBytes *in, GError **error)
{
    StreamElement element;
    size_t length = 0;

    if (!walk->has_ended)
        return walk_fail(error, "EOF before the end of ram");
    if (walk->phase == WALK_RUNNING) {
        walk->phase = WALK_END;
        return in->at == in->length || walk_fail(error, "bytes behind EOF of a postcopy");
    }
    StreamResult result = stream_decode_element(REST(in), &element, &length, error);
    if (!advance(walk, in, result, length, error) || walk->reached_cut)
        return walk->reached_cut;
    if (element.type != STREAM_VMDESCRIPTION || element.json_length != in->length - in->at)
        return walk_fail(error, "no description, or bytes behind it");
    walk->has_description = true;
    return walk_description(walk, (const char *)in->bytes + in->at, element.json_length, error);
}

static bool
walk_elements(Walk *walk, WalkBytes *in, bool is_package, GError **error)
{
    while (!walk->reached_cut) {
        StreamElement element;
        size_t length = 0;
        StreamResult result = stream_decode_element(REST(in), &element, &length, error);
        if (!advance(walk, in, result, length, error))
            return false;
        if (walk->reached_cut)
            return !is_package || walk_fail(error, "package without RUN");
        if (element.type == STREAM_EOF)
            return is_package ? walk_fail(error, "EOF in package") : walk_eof(walk, in, error);
        if (element.type == STREAM_VMDESCRIPTION)
            return walk_fail(error, "description before EOF");
        if (element.type == STREAM_COMMAND ? !walk_command(walk, in, &element, is_package, error)
                                           : !walk_section(walk, in, &element, error))
            return false;
        if (is_package && walk->phase == WALK_RUNNING)
            return in->at == in->length || walk_fail(error, "bytes behind RUN");
    }
    return true;
}

bool
walk_main(Walk *walk, const uint8_t *bytes, size_t length_bytes, GError **error)
{
    WalkBytes in = {bytes, length_bytes, 0};
    size_t length = 0;

    walk->reached_cut = false;
    walk->last_main = NULL;
    if (!walk->is_resumed) {
        StreamResult result = stream_decode_header(REST(&in), &length, error);
        if (!advance(walk, &in, result, length, error))
            return false;
        result = stream_decode_configuration(REST(&in), &walk->configuration, &length, error);
        if (!advance(walk, &in, result, length, error))
            return false;
    }
    if (!walk_elements(walk, &in, false, error))
        return false;
    return walk_finish_multifd(walk, error);
}
