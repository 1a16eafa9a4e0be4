/* SPDX-License-Identifier: MIT */
/*
 * A device section's inside: parts, each le32 id, le32 length, bytes, one after the other in the
 * order of a table. What KVM keeps in structs of a fixed layout travels as such a part; x86 is
 * little-endian, so are they.
 *
 * Any thread; no state.
 */
#ifndef KVM_KVM_PARTS_H
#define KVM_KVM_PARTS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

void part_add(GByteArray *section, uint32_t id, const void *bytes, size_t length_bytes);

typedef struct PartReader {
    const char *section; /* for errors, e.g. "faultline/vcpu 2" */
    const uint8_t *at;
    size_t left;
} PartReader;

/* The next part must have this id and a length of least_bytes..most_bytes. Errors: PEER. */
bool part_next(PartReader *reader, uint32_t id, const char *name, size_t least_bytes,
               size_t most_bytes, const uint8_t **ret_bytes, size_t *ret_length_bytes,
               GError **error);

/* The next part must have exactly this length; copied into ret. */
bool part_copy(PartReader *reader, uint32_t id, const char *name, void *ret, size_t length_bytes,
               GError **error);

/* Nothing may follow the last part. */
bool part_end(const PartReader *reader, GError **error);

#endif
