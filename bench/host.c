/* SPDX-License-Identifier: MIT */
/*
 * /proc and /sys: reading them for the report, and the two settings that are changed for a while.
 * What a signal handler restores was rendered to text before, so that it only writes.
 */
#include "bench/host.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define NR_HUGEPAGES  "/proc/sys/vm/nr_hugepages"
#define HUGE_BYTES    (2u << 20)

typedef struct SavedSetting {
    const char *path;
    char before[32]; /* "": unchanged */
} SavedSetting;

static SavedSetting saved_settings[] = {{.path = SHMEM_ENABLED}, {.path = NR_HUGEPAGES}};

/* ---- Reading
 * -------------------------------------------------------------------------------------------------
 */

static char *
read_line(const char *path)
{
    char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return g_strdup("");
    char *end = strchr(text, '\n');
    if (end)
        *end = 0;
    return g_strstrip(text);
}

/* "a [b] c" -> "b"; anything else as it is. */
static char *
chosen_of(char *line)
{
    char *open = strchr(line, '['), *close = open ? strchr(open, ']') : NULL;
    char *chosen = close ? g_strndup(open + 1, (gsize)(close - open - 1)) : g_strdup(line);
    g_free(line);
    return chosen;
}

/* The value behind "key<blanks>:" in a file of such lines. */
static char *
read_value(const char *path, const char *key)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return g_strdup("");
    const char *at = strstr(text, key);
    const char *colon = at ? strchr(at, ':') : NULL;
    const char *end = colon ? strchr(colon, '\n') : NULL;
    return end ? g_strstrip(g_strndup(colon + 1, (gsize)(end - colon - 1))) : g_strdup("");
}

static void
add_text(JsonBuilder *builder, const char *name, char *value)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_string_value(builder, value);
    g_free(value);
}

void
host_describe(JsonBuilder *builder)
{
    struct utsname name;
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *flags = read_value("/proc/cpuinfo", "flags");

    uname(&name);
    add_text(builder, "date", g_date_time_format_iso8601(now));
    add_text(builder, "kernel", g_strdup_printf("%s %s", name.sysname, name.release));
    add_text(builder, "cpu", read_value("/proc/cpuinfo", "model name"));
    add_text(builder, "cpus", g_strdup_printf("%ld", sysconf(_SC_NPROCESSORS_ONLN)));
    add_text(builder, "memory", read_value("/proc/meminfo", "MemTotal"));
    add_text(builder, "load-at-start", read_line("/proc/loadavg"));
    add_text(builder, "is-virtual", g_strdup(strstr(flags, "hypervisor") ? "yes" : "no"));
    add_text(builder, "congestion-control", read_line("/proc/sys/net/ipv4/tcp_congestion_control"));
    add_text(builder, "cpu-idle-governor",
             read_line("/sys/devices/system/cpu/cpuidle/current_governor"));
}

char *
host_summary(void)
{
    struct utsname name;
    g_autofree char *cpu = read_value("/proc/cpuinfo", "model name");
    g_autofree char *load = read_line("/proc/loadavg");

    uname(&name);
    return g_strdup_printf("%s, %ld CPUs, %s %s, load at start %s", cpu,
                           sysconf(_SC_NPROCESSORS_ONLN), name.sysname, name.release, load);
}

/* ---- Changing
 * ------------------------------------------------------------------------------------------------
 */

/* Async-signal-safe. */
static bool
write_setting(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool written = write(fd, value, strlen(value)) == (ssize_t)strlen(value);
    close(fd);
    return written;
}

void
host_restore(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(saved_settings); i++) {
        if (saved_settings[i].before[0])
            (void)write_setting(saved_settings[i].path, saved_settings[i].before);
        saved_settings[i].before[0] = 0;
    }
}

static void
restore_and_die(int signal_number)
{
    host_restore();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void
restore_when_we_end(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    atexit(host_restore);
    signal(SIGINT, restore_and_die);
    signal(SIGTERM, restore_and_die);
    signal(SIGHUP, restore_and_die);
}

static bool
change(SavedSetting *setting, const char *value, GError **error)
{
    g_autofree char *before = chosen_of(read_line(setting->path));

    if (g_str_equal(before, value))
        return true;
    restore_when_we_end();
    if (!setting->before[0])
        g_strlcpy(setting->before, before, sizeof setting->before);
    if (write_setting(setting->path, value))
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                "prepare the backing: write %s to %s: %s; run as root, or choose --backing private",
                value, setting->path, g_strerror(errno));
    return false;
}

static bool
reserve_huge_pages(uint64_t total_bytes, GError **error)
{
    g_autofree char *unused = read_value("/proc/meminfo", "HugePages_Free");
    g_autofree char *total = read_line(NR_HUGEPAGES);
    uint64_t needed = (total_bytes + HUGE_BYTES - 1) / HUGE_BYTES;
    uint64_t count_free = g_ascii_strtoull(unused, NULL, 10);

    if (count_free >= needed)
        return true;
    g_autofree char *value = g_strdup_printf(
        "%" G_GUINT64_FORMAT, g_ascii_strtoull(total, NULL, 10) + needed - count_free);
    if (!change(&saved_settings[1], value, error))
        return false;
    g_autofree char *reserved = read_value("/proc/meminfo", "HugePages_Free");
    if (g_ascii_strtoull(reserved, NULL, 10) >= needed)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                "prepare the backing: this host has %s free huge pages of the %" G_GUINT64_FORMAT
                " needed; take less --memory",
                reserved, needed);
    return false;
}

bool
host_prepare_backing(Backing backing, uint64_t total_bytes, GError **error)
{
    switch (backing) {
    case BACKING_SMALL:
        return change(&saved_settings[0], "never", error);
    case BACKING_THP:
        return change(&saved_settings[0], "advise", error);
    case BACKING_HUGETLB:
        return reserve_huge_pages(total_bytes, error);
    default:
        return true;
    }
}
