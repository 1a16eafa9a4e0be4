/* SPDX-License-Identifier: MIT */
/*
 * Device state: the length in front of our own devices, and QEMU's globalstate, which tells whether
 * the guest ran at the source. Called by the thread that saves or loads devices; what a device's
 * bytes mean, only the VMM knows.
 */
#include "engine/stream/wire.h"

StreamResult
stream_decode_device_length(const uint8_t *bytes, size_t available, const char *name,
                            uint64_t limit_bytes, uint32_t *ret_device_length, size_t *ret_length,
                            GError **error)
{
    WireReader reader = wire_reader(bytes, available);

    if (!wire_take_be32(&reader, ret_device_length))
        return wire_more(&reader, ret_length);
    if (*ret_device_length > limit_bytes)
        return wire_bad(error,
                        "decode section %s: length of the device state is %u, expected at most "
                        "%" PRIu64,
                        name, *ret_device_length, limit_bytes);
    return wire_ok(&reader, ret_length);
}

/* Run states of QEMU that a source can have been in. */
static const char *const run_states[] = {
    "running",        "paused",         "suspended",      "prelaunch", "inmigrate", "postmigrate",
    "finish-migrate", "restore-vm",     "save-vm",        "debug",     "shutdown",  "watchdog",
    "io-error",       "internal-error", "guest-panicked", "colo",
};

static bool
is_run_state(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(run_states); i++)
        if (strcmp(name, run_states[i]) == 0)
            return true;
    return false;
}

/* A suspended guest counts as not running: its vCPUs wait for a wake-up that the VMM gives. */
StreamResult
stream_decode_globalstate(const uint8_t *bytes, size_t available, bool *ret_running,
                          size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    const WireGlobalstate *wire = wire_take(&reader, sizeof *wire);

    if (!wire)
        return wire_more(&reader, ret_length);
    uint32_t name_bytes = be32_load(wire->name_bytes);
    if (name_bytes < 2 || name_bytes > sizeof wire->name)
        return wire_bad(error,
                        "decode section globalstate: length of the run state is %u, expected 2 to "
                        "%zu",
                        name_bytes, sizeof wire->name);
    if (!wire_is_zero(wire->name + name_bytes - 1, sizeof wire->name - name_bytes + 1))
        return wire_bad(error,
                        "decode section globalstate: run state is no text of %u bytes, "
                        "expected it padded with 0",
                        name_bytes - 1);

    char name[STREAM_NAME_MAX + 1];
    StreamResult result = wire_copy_name(wire->name, name_bytes - 1,
                                         "decode section globalstate: run state", name, error);
    if (result != STREAM_OK)
        return result;
    if (!is_run_state(name))
        return wire_bad(error,
                        "decode section globalstate: run state is %s, expected one of QEMU's, "
                        "like running or paused",
                        name);
    if (wire->has_was_suspended > 1 || wire->was_suspended > 1)
        return wire_bad(error,
                        "decode section globalstate: was-suspended is %u, %u, expected 0 or 1 each",
                        wire->has_was_suspended, wire->was_suspended);
    if (!wire_is_zero(wire->zero, sizeof wire->zero))
        return wire_bad(error, "decode section globalstate: padding is not 0");
    *ret_running = strcmp(name, "running") == 0;
    return wire_ok(&reader, ret_length);
}

void
stream_put_globalstate(StreamWriter *writer, bool running)
{
    const char *name = running ? "running" : "paused";
    WireGlobalstate wire = {.name_bytes = be32_make((uint32_t)strlen(name) + 1)};

    memcpy(wire.name, name, strlen(name));
    stream_put_start(writer, STREAM_FULL, STREAM_GLOBALSTATE_SECTION, "globalstate", 0, 1);
    stream_put_bytes(writer, &wire, sizeof wire);
    stream_put_footer(writer, STREAM_GLOBALSTATE_SECTION);
}
