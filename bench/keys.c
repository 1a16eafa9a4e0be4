/* SPDX-License-Identifier: MIT */
/* See keys.h. The coordinating process makes and removes, each side's process uses. */
#include "bench/keys.h"

#include <glib/gstdio.h>

char *
bench_keys_make(GError **error)
{
    g_autofree char *dir = g_dir_make_tmp("faultline-bench-XXXXXX", error);
    g_autoptr(GString) line = g_string_new("qemu:");

    if (!dir)
        return NULL;
    for (unsigned i = 0; i < 8; i++)
        g_string_append_printf(line, "%08x", g_random_int());
    g_autofree char *path = g_build_filename(dir, "keys.psk", NULL);
    if (g_file_set_contents_full(path, line->str, -1, G_FILE_SET_CONTENTS_NONE, 0600, error))
        return g_steal_pointer(&dir);
    g_rmdir(dir);
    return NULL;
}

void
bench_keys_remove(char *dir)
{
    if (!dir)
        return;
    g_autofree char *path = g_build_filename(dir, "keys.psk", NULL);
    g_unlink(path);
    g_rmdir(dir);
    g_free(dir);
}

bool
bench_keys_use(Faultline *faultline, const char *dir, bool is_source, GError **error)
{
    const FaultlineProperty properties[] = {{"dir", dir},
                                            {"endpoint", is_source ? "client" : "server"}};

    return faultline_add_object(faultline, "tls-creds-psk", "tls0", properties,
                                G_N_ELEMENTS(properties), error) &&
           faultline_set_text_parameter(faultline, "tls-creds", "tls0", error);
}
