/* SPDX-License-Identifier: MIT */
/*
 * Writing and checking the parts of a device section. Nothing that a section says is believed
 * before it was compared with what is there; what the bytes mean is for kvm_state.c and
 * kvm_vcpu_state.c.
 */
#include "kvm/kvm_parts.h"

#include <string.h>

#include "engine/faultline.h"

#define HEAD_BYTES 8

void
part_add(GByteArray *section, uint32_t id, const void *bytes, size_t length_bytes)
{
    uint32_t head[2] = {GUINT32_TO_LE(id), GUINT32_TO_LE((uint32_t)length_bytes)};
    g_byte_array_append(section, (const guint8 *)head, sizeof head);
    g_byte_array_append(section, bytes, (guint)length_bytes);
}

static bool
refuse(const PartReader *reader, const char *name, const char *why, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                "Cannot load section %s: %s %s. Source and destination must be the same version "
                "of the machine",
                reader->section, name, why);
    return false;
}

bool
part_next(PartReader *reader, uint32_t id, const char *name, size_t least_bytes, size_t most_bytes,
          const uint8_t **ret_bytes, size_t *ret_length_bytes, GError **error)
{
    uint32_t head[2];
    if (reader->left < HEAD_BYTES)
        return refuse(reader, name, "is missing", error);
    memcpy(head, reader->at, HEAD_BYTES);
    uint32_t length = GUINT32_FROM_LE(head[1]);
    if (GUINT32_FROM_LE(head[0]) != id)
        return refuse(reader, name, "is not where it should be", error);
    if (length > reader->left - HEAD_BYTES)
        return refuse(reader, name, "is cut short", error);
    if (length < least_bytes || length > most_bytes) {
        g_autofree char *why =
            g_strdup_printf("has %u bytes, not %zu to %zu", length, least_bytes, most_bytes);
        return refuse(reader, name, why, error);
    }
    *ret_bytes = reader->at + HEAD_BYTES;
    *ret_length_bytes = length;
    reader->at += HEAD_BYTES + length;
    reader->left -= HEAD_BYTES + length;
    return true;
}

bool
part_copy(PartReader *reader, uint32_t id, const char *name, void *ret, size_t length_bytes,
          GError **error)
{
    const uint8_t *bytes;
    size_t got;
    if (!part_next(reader, id, name, length_bytes, length_bytes, &bytes, &got, error))
        return false;
    memcpy(ret, bytes, got);
    return true;
}

bool
part_end(const PartReader *reader, GError **error)
{
    return reader->left == 0 || refuse(reader, "its end", "is followed by more bytes", error);
}
