/* SPDX-License-Identifier: MIT */
/*
 * tests/chaos: migrations of real processes to which something happens. Each seed is one migration
 * in a process of its own, whose end ends everything that it started; this one counts, and shows
 * what the failed ones had to say.
 *
 *   chaos [--seed N] [--count M] [--jobs J] [--guest kvm|threads] [--only FAULT] [--verbose]
 *
 * Seeds N to N+M-1 are run; a failed one by itself: --seed N --count 1 --verbose.
 */
#include "tests/chaos/records.h"
#include "tests/chaos/table.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOBS_MAX       16
#define CHILD_LIMIT_US (600 * G_USEC_PER_SEC)

typedef struct Options {
    gint64 seed;
    int count, jobs;
    char *guest, *only;
    gboolean verbose;
} Options;

/* A migration under way. */
typedef struct Job {
    pid_t pid; /* 0: free */
    int result;
    char *directory;
    uint64_t seed;
    int64_t until_us;
} Job;

/* ---- The process of one migration -------------------------------------------------------------
 */

static void
tell(Migration *migration, const GError *error, bool verbose, int result_fd)
{
    Result result = {.seed = migration->plan->seed,
                     .count_blows = migration->plan->count_blows,
                     .outcome = migration->outcome,
                     .failed = error != NULL,
                     .seconds =
                         (double)(g_get_monotonic_time() - migration->began_us) / G_USEC_PER_SEC};

    for (unsigned i = 0; i < result.count_blows; i++) {
        result.faults[i] = migration->plan->blows[i].fault;
        result.phases[i] = migration->phases[i];
    }
    if (error)
        g_strlcpy(result.text, error->message, sizeof result.text);
    if (error || verbose) {
        g_autofree char *plan = plan_describe(migration->plan);
        printf("==== seed %" G_GUINT64_FORMAT ": %s\n%s", migration->plan->seed, plan,
               migration->story->str);
    }
    if (error) {
        g_autofree char *passed = migration->relay ? relay_describe(migration->relay) : NULL;
        printf("  FAILED: %s\n  relay: %s\n", error->message, passed ? passed : "none");
        side_show(&migration->source);
        side_show(&migration->destination);
    }
    fflush(stdout);
    if (write(result_fd, &result, sizeof result) < 0)
        perror("chaos: telling the result");
}

static void
run_one(const Plan *plan, const char *directory, bool verbose, int result_fd)
{
    g_autoptr(GError) error = NULL;
    Migration migration;

    migration_init(&migration, plan, directory);
    bool good = migration_drive(&migration, &error);
    if (good) {
        migration_judge(&migration);
        good = migration_check(&migration, &error);
    }
    g_assert(good == !error);
    tell(&migration, error, verbose, result_fd);
    migration_clear(&migration);
}

/* ---- The parent --------------------------------------------------------------------------------
 */

static int
remove_entry(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status;
    (void)kind;
    (void)at;
    return remove(path);
}

static void
start_job(Job *job, const Plan *plan, bool verbose)
{
    int ends[2];

    job->directory = g_dir_make_tmp("faultline-chaos-XXXXXX", NULL);
    if (!job->directory || pipe2(ends, O_CLOEXEC) != 0)
        g_error("chaos: no directory or pipe: %s", g_strerror(errno));
    job->seed = plan->seed;
    job->result = ends[0];
    job->until_us = g_get_monotonic_time() + CHILD_LIMIT_US;
    fflush(NULL);
    job->pid = fork();
    if (job->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_one(plan, job->directory, verbose, ends[1]);
        fflush(NULL);
        _exit(0);
    }
    close(ends[1]);
}

/* Its result, or that it died without one. */
static void
end_job(Job *job, Table *table)
{
    Result result = {.seed = job->seed, .outcome = OUTCOME_WRONG, .failed = true};
    int wait_status = 0;

    if (read(job->result, &result, sizeof result) != sizeof result) {
        kill(job->pid, SIGKILL);
        g_strlcpy(result.text, "its process died, or hung", sizeof result.text);
    }
    waitpid(job->pid, &wait_status, 0);
    close(job->result);
    nftw(job->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    g_free(job->directory);
    job->pid = 0;
    table_count(table, &result);
    if (result.failed)
        printf("FAILED seed %" G_GUINT64_FORMAT " (%s in phase %s: %s): %s\n"
               "  again: chaos --seed %" G_GUINT64_FORMAT " --count 1 --verbose\n",
               result.seed, fault_name(result.faults[0]), phase_name(result.phases[0]),
               outcome_name(result.outcome), result.text, result.seed);
    fflush(stdout);
}

static void
await_job(Job *jobs, int count, Table *table)
{
    struct pollfd polled[JOBS_MAX];

    for (int i = 0; i < count; i++)
        polled[i] = (struct pollfd){.fd = jobs[i].pid ? jobs[i].result : -1, .events = POLLIN};
    poll(polled, (nfds_t)count, 1000);
    for (int i = 0; i < count; i++)
        if (jobs[i].pid && (polled[i].revents || g_get_monotonic_time() > jobs[i].until_us))
            end_job(&jobs[i], table);
}

static Job *
find_job(Job *jobs, int count, bool want_free)
{
    for (int i = 0; i < count; i++)
        if ((jobs[i].pid == 0) == want_free)
            return &jobs[i];
    return NULL;
}

static void
run_all(const Options *options, const PlanLimits *limits, Table *table)
{
    Job jobs[JOBS_MAX] = {{0}};
    int began = 0;

    while (began < options->count || find_job(jobs, options->jobs, false)) {
        Job *job = began < options->count ? find_job(jobs, options->jobs, true) : NULL;
        if (job) {
            Plan plan;
            plan_draw(&plan, (uint64_t)options->seed + (uint64_t)began++, limits);
            start_job(job, &plan, options->verbose);
            continue;
        }
        await_job(jobs, options->jobs, table);
        if (table->done && table->done % 100 == 0 && !options->verbose)
            printf("%u of %d, %u failed\n", table->done, options->count, table->failed);
    }
}

static bool
parse(Options *options, PlanLimits *limits, int argc, char **argv)
{
    const GOptionEntry entries[] = {
        {"seed", 0, 0, G_OPTION_ARG_INT64, &options->seed, "of the first migration", "N"},
        {"count", 0, 0, G_OPTION_ARG_INT, &options->count, "migrations", "M"},
        {"jobs", 0, 0, G_OPTION_ARG_INT, &options->jobs, "at the same time", "J"},
        {"guest", 0, 0, G_OPTION_ARG_STRING, &options->guest, "kvm or threads", "KIND"},
        {"only", 0, 0, G_OPTION_ARG_STRING, &options->only, "do nothing else", "FAULT"},
        {"verbose", 0, 0, G_OPTION_ARG_NONE, &options->verbose, "tell of each", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fprintf(stderr, "chaos: %s\n", error->message);
        return false;
    }
    options->jobs = CLAMP(options->jobs, 1, JOBS_MAX);
    limits->only = options->only ? (int)fault_of(options->only) : -1;
    limits->with_threads = !options->guest || g_str_equal(options->guest, "threads");
    limits->with_kvm = !options->guest || g_str_equal(options->guest, "kvm");
    if (limits->only == FAULT_COUNT)
        fprintf(stderr, "chaos: nothing like '%s' is done to migrations\n", options->only);
    return limits->only != FAULT_COUNT;
}

static bool
has_kvm(void)
{
    if (g_getenv("FAULTLINE_TEST_NO_KVM") || access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("no KVM here (%s): migrations of the guest of threads only\n",
               g_getenv("FAULTLINE_TEST_NO_KVM") ? "FAULTLINE_TEST_NO_KVM" : g_strerror(errno));
        return false;
    }
    return true;
}

int
main(int argc, char **argv)
{
    Options options = {.seed = 1, .count = 30, .jobs = 1};
    PlanLimits limits = {.only = -1};
    Table table = {.done = 0};
    int64_t began_us = g_get_monotonic_time();

    if (!parse(&options, &limits, argc, argv))
        return 2;
    limits.with_kvm = has_kvm() && limits.with_kvm;
    limits.with_threads = limits.with_threads || !limits.with_kvm;
    limits.with_fills = records_can_fill();
    if (!limits.with_fills)
        printf("no mount namespaces here: no disk is filled\n");
    signal(SIGPIPE, SIG_IGN);
    run_all(&options, &limits, &table);
    table_print(&table);
    printf("%u migrations from seed %" G_GINT64_FORMAT " on, %u failed, %.0f s\n", table.done,
           options.seed, table.failed, (double)(g_get_monotonic_time() - began_us) / 1e6);
    return table.failed != 0;
}
