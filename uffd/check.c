/* SPDX-License-Identifier: MIT */
/*
 * The rows that uffd/ has to tell about a host: who may open a userfaultfd, what it offers, and
 * what each kind of memory is good for. Any one thread, set-up; tries by gate.c and trial.c, and
 * only says here what an outcome means. What may be closed without harm is a warning.
 */
#include "uffd/memory.h"

#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>

#include "uffd/trial.h"

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define HUGE_FREE     "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

typedef struct Check {
    void (*take)(void *opaque, const UffdCheck *check);
    void *opaque;
    bool needs_tracker;
} Check;

static void
say(const Check *check, const char *name, const char *tried, UffdCheckState state, const char *text)
{
    const UffdCheck row = {.name = name, .tried = tried, .state = state, .text = text};

    check->take(check->opaque, &row);
}

/* ---- Who may --------------------------------------------------------------------------------- */

static void
check_seccomp(const Check *check)
{
    bool filtered = uffd_process_status("Seccomp", 10) == 2;

    say(check, "seccomp", "seccomp filter on this process",
        filtered ? UFFD_CHECK_WARNING : UFFD_CHECK_OK,
        filtered ? "one is active and may refuse what a migration calls later. Compare it with the "
                   "system calls that faultline.h lists for each thread"
                 : "none");
}

/* false: all are closed. */
static bool
check_gates(const Check *check)
{
    UffdGate gates[UFFD_GATES];
    bool any = false;

    uffd_gates_try(gates);
    for (unsigned i = 0; i < UFFD_GATES; i++) {
        any |= gates[i].is_open;
    }
    for (unsigned i = 0; i < UFFD_GATES; i++) {
        const UffdGate *gate = &gates[i];
        g_autofree char *text = gate->is_open ? g_strdup("open, also for faults of kernel mode")
                                : any
                                    ? g_strdup_printf("%s. Not needed: another way is open; else: "
                                                      "%s",
                                                      gate->reason, gate->remedy)
                                    : g_strdup_printf("%s. %s", gate->reason, gate->remedy);

        say(check, gate->name, gate->tried,
            gate->is_open ? UFFD_CHECK_OK
            : any         ? UFFD_CHECK_WARNING
                          : UFFD_CHECK_CLOSED,
            text);
    }
    uffd_gates_clear(gates);
    return any;
}

/* false: what cannot be done without is missing. */
static bool
check_features(const Check *check)
{
    g_autoptr(GString) names = g_string_new("has");
    g_autoptr(GString) lacks = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    Uffd *uffd = uffd_open(&error);

    if (uffd == NULL) {
        say(check, "uffd-features", "features of userfaultfd", UFFD_CHECK_CLOSED, error->message);
        return false;
    }
    for (const UffdFeatureRow *row = uffd_feature_table(); row->name != NULL; row++) {
        if (uffd_features(uffd) & row->bit) {
            g_string_append_printf(names, " %s", row->name);
        } else {
            g_autofree char *text = uffd_feature_lack(row);

            g_string_append_printf(lacks, "%s%s", lacks->len > 0 ? ". " : "", text);
        }
    }
    say(check, "uffd-features", "features of userfaultfd",
        lacks->len > 0 ? UFFD_CHECK_WARNING : UFFD_CHECK_OK,
        lacks->len > 0 ? lacks->str : names->str);
    uffd_free(uffd);
    return true;
}

/* ---- Kinds of memory ------------------------------------------------------------------------- */

static const TrialKind kinds[] = {
    {.name = "private", .text = "private memory"},
    {.name = "memfd", .text = "memfd", .is_memfd = true},
    {.name = "memfd-thp", .text = "memfd on 2 MiB pages", .is_memfd = true, .is_thp = true},
    {.name = "hugetlb", .text = "memfd of huge pages", .is_hugetlb = true},
};

typedef struct Question {
    const char *name;
    const char *text;
    bool (*try)(const TrialKind *kind, GError **error);
    const char *works;
    const char *without; /* where it is closed and can be done without */
    bool is_needed, memfd_only, is_tracker;
} Question;

static const Question questions[] = {
    {.name = "missing",
     .text = "a missing page of %s",
     .try = trial_of_missing,
     .works = "who touched it waited and read what UFFDIO_COPY placed",
     .without = "Guests can have another kind of memory",
     .is_needed = true},
    {.name = "minor",
     .text = "a received page of %s",
     .try = trial_of_minor,
     .works = "who touched it waited and read what UFFDIO_CONTINUE placed",
     .without = "Without it pages come by UFFDIO_COPY, and huge pages at the end only",
     .memfd_only = true},
    {.name = "wp-async",
     .text = "a write to %s",
     .try = trial_of_tracker,
     .works = "WP_ASYNC and PAGEMAP_SCAN told it",
     .without = "Guests with a dirty log of their own, as KVM's, do not need it",
     .is_tracker = true},
};

static char *
read_word(const char *path)
{
    char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? g_strstrip(text) : g_strdup("not there");
}

static char *
thp_remedy(void)
{
    g_autofree char *value = read_word(SHMEM_ENABLED);
    bool closed = strstr(value, "[never]") != NULL || strstr(value, "[deny]") != NULL;

    return closed ? g_strdup("Run 'echo advise > " SHMEM_ENABLED "' as root")
                  : g_strdup_printf("Free memory, or run 'echo 1 > /proc/sys/vm/compact_memory' as "
                                    "root (" SHMEM_ENABLED ": %s)",
                                    value);
}

/* Kinds that not every host offers have a row of their own. */
static bool
check_kind(const Check *check, const TrialKind *kind)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *free_pages = read_word(HUGE_FREE);
    g_autofree char *text = NULL;
    bool done = trial_of_memory(kind, &error);

    if (done && kind->is_hugetlb) {
        text = g_strdup_printf("%s of 2 MiB are free", free_pages);
    } else if (kind->is_hugetlb) {
        text = g_strdup_printf("%s (free: %s). Run 'sysctl -w vm.nr_hugepages=N' as root, with one "
                               "for each 2 MiB of the guest, if it shall have such memory",
                               error->message, free_pages);
    } else if (!done) {
        g_autofree char *remedy = thp_remedy();

        text = g_strdup_printf("%s. %s; without it such guests are backed by 4 KiB", error->message,
                               remedy);
    }
    say(check, kind->name, kind->text, done ? UFFD_CHECK_OK : UFFD_CHECK_WARNING,
        text != NULL ? text : "can be had");
    return done;
}

static void
ask(const Check *check, const TrialKind *kind, const Question *question)
{
    g_autofree char *name = g_strdup_printf("%s-%s", kind->name, question->name);
    g_auto(GStrv) parts = g_strsplit(question->text, "%s", 2);
    g_autofree char *tried = g_strjoinv(kind->text, parts);
    g_autoptr(GError) error = NULL;

    if (question->try(kind, &error)) {
        say(check, name, tried, UFFD_CHECK_OK, question->works);
        return;
    }
    bool is_special = kind->is_thp || kind->is_hugetlb;

    if (!is_special && (question->is_needed || (question->is_tracker && check->needs_tracker))) {
        say(check, name, tried, UFFD_CHECK_CLOSED, error->message);
        return;
    }
    g_autofree char *text = g_strdup_printf("%s. %s", error->message, question->without);

    say(check, name, tried, UFFD_CHECK_WARNING, text);
}

static void
check_memory(const Check *check)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        const TrialKind *kind = &kinds[i];

        if ((kind->is_thp || kind->is_hugetlb) && !check_kind(check, kind)) {
            continue;
        }
        for (unsigned j = 0; j < G_N_ELEMENTS(questions); j++) {
            if (kind->is_memfd || !questions[j].memfd_only) {
                ask(check, kind, &questions[j]);
            }
        }
    }
}

static void
check_lock(const Check *check)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    struct rlimit limit = {0};
    bool done = trial_of_lock(&error);

    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (!done) {
        text = g_strdup_printf("%s (limit: %" PRIu64 " KiB). Run 'ulimit -l unlimited' before it, "
                               "or give its unit LimitMEMLOCK=infinity, if guest memory shall be "
                               "locked; nothing else needs it",
                               error->message, (uint64_t)limit.rlim_cur / 1024);
    } else if (limit.rlim_cur == RLIM_INFINITY) {
        text = g_strdup("no limit");
    } else {
        text = g_strdup_printf("limit: %" PRIu64 " KiB", (uint64_t)limit.rlim_cur / 1024);
    }
    say(check, "memlock", "locked memory", done ? UFFD_CHECK_OK : UFFD_CHECK_WARNING, text);
}

void
uffd_check_host(bool needs_tracker, void (*take)(void *opaque, const UffdCheck *check),
                void *opaque)
{
    const Check check = {.take = take, .opaque = opaque, .needs_tracker = needs_tracker};

    check_seccomp(&check);
    if (check_gates(&check) && check_features(&check)) {
        check_memory(&check);
    }
    check_lock(&check);
}
