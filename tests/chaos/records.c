/* SPDX-License-Identifier: MIT */
/* See records.h. */
#include "tests/chaos/records.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK_OPTIONS "size=128k,mode=0700"
#define FILLER       "filler"

bool
records_can_fill(void)
{
    int wait_status = 1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0
                  ? 0
                  : 1);
    return pid > 0 && waitpid(pid, &wait_status, 0) == pid && wait_status == 0;
}

char *
records_directory(const Migration *migration, const Side *side)
{
    return g_strdup_printf("%s/records-of-%s", migration->directory, side->role);
}

bool
records_prepare(Migration *migration, GError **error)
{
    const Side *sides[] = {&migration->source, &migration->destination};
    bool mounts = migration->plan->can_fill;

    if (!migration->plan->has_records)
        return true;
    if (mounts &&
        (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0))
        return migration_refuse(error, "no mount namespace of our own: %s", g_strerror(errno));
    for (unsigned i = 0; i < G_N_ELEMENTS(sides); i++) {
        g_autofree char *directory = records_directory(migration, sides[i]);
        if (g_mkdir(directory, 0700) != 0 ||
            (mounts && mount("none", directory, "tmpfs", 0, DISK_OPTIONS) != 0))
            return migration_refuse(error, "%s: %s", directory, g_strerror(errno));
    }
    return true;
}

void
records_fill(const Migration *migration, const Side *side)
{
    static const char bytes[512];
    g_autofree char *directory = records_directory(migration, side);
    g_autofree char *filler = g_build_filename(directory, FILLER, NULL);
    int fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    while (fd >= 0 && write(fd, bytes, sizeof bytes) > 0)
        ;
    if (fd >= 0)
        close(fd);
}

void
records_make_room(const Migration *migration)
{
    const Side *sides[] = {&migration->source, &migration->destination};

    for (unsigned i = 0; i < G_N_ELEMENTS(sides); i++) {
        g_autofree char *directory = records_directory(migration, sides[i]);
        g_autofree char *filler = g_build_filename(directory, FILLER, NULL);
        g_unlink(filler);
    }
}

/* ---- Whether they are true ------------------------------------------------------------------- */

/* As an administrator does: all that both hosts have in one directory. */
static bool
collect(const Migration *migration, const char *to, GError **error)
{
    const Side *sides[] = {&migration->source, &migration->destination};

    if (g_mkdir_with_parents(to, 0700) != 0)
        return migration_refuse(error, "%s: %s", to, g_strerror(errno));
    for (unsigned i = 0; i < G_N_ELEMENTS(sides); i++) {
        g_autofree char *directory = records_directory(migration, sides[i]);
        g_autofree char *name = g_strdup_printf("guest.%s.json", sides[i]->role);
        g_autofree char *from = g_build_filename(directory, name, NULL);
        g_autofree char *copy = g_build_filename(to, name, NULL);
        g_autofree char *text = NULL;
        gsize length;
        if (!g_file_get_contents(from, &text, &length, NULL))
            continue; /* none was written yet */
        if (!g_file_set_contents(copy, text, (gssize)length, error))
            return false;
    }
    return true;
}

static char *
ask_status(const Migration *migration, GError **error)
{
    g_autofree char *directory = g_build_filename(migration->directory, "records", NULL);
    g_autofree char *program = side_program();
    const char *argv[] = {program, "status", "--json", directory, NULL};
    g_autofree char *complaint = NULL;
    char *text = NULL;
    int wait_status;

    if (!collect(migration, directory, error) ||
        !g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &text, &complaint,
                      &wait_status, error))
        return NULL;
    if (*text == '\0')
        migration_refuse(error, "faultline status says nothing: %s", complaint);
    return text;
}

static const char *
true_place(const Migration *migration)
{
    switch (migration->outcome) {
    case OUTCOME_STAYED:
    case OUTCOME_UNDECIDED:
        return "source";
    case OUTCOME_GONE:
        return migration->source.pid ? "destination" : "source";
    default:
        return "destination";
    }
}

/* A side that could not write leaves open what it could not say; so does one that was killed while
 * the guest changed hands. */
static bool
may_be_open(const Migration *migration)
{
    for (unsigned i = 0; i < migration->plan->count_blows; i++) {
        Fault fault = migration->plan->blows[i].fault;
        bool fills = fault == FAULT_FILL_SOURCE || fault == FAULT_FILL_DESTINATION;
        bool kills = fault == FAULT_KILL_SOURCE || fault == FAULT_KILL_DESTINATION;
        if (migration->struck_us[i] &&
            (fills || (kills && migration->phases[i] == PHASE_SWITCHOVER)))
            return true;
    }
    return false;
}

bool
records_check(Migration *migration, GError **error)
{
    if (!migration->plan->has_records)
        return true;
    g_autofree char *text = ask_status(migration, error);
    if (!text || *error)
        return false;
    migration_note(migration, "faultline status: %s", g_strchomp(text));
    g_autoptr(JsonNode) node = json_from_string(text, error);
    if (!node)
        return false;
    JsonObject *object = json_node_get_object(node);
    if (!json_object_has_member(object, "guest"))
        return migration_refuse(error, "faultline status could not read a record: %s", text);
    const char *said = json_object_get_string_member(object, "guest");
    const char *is = true_place(migration);
    if (g_str_equal(said, is) || (g_str_equal(said, "either") && may_be_open(migration)))
        return true;
    return migration_refuse(error, "faultline status says '%s', but the guest is at the %s", said,
                            is);
}
