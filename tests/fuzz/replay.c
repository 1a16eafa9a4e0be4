/* SPDX-License-Identifier: MIT */
/*
 * Runs a harness over files: its corpus, and one case for each input that was a finding once.
 *
 *     fuzz_NAME [FILE or FOLDER]...    without: tests/fuzz/corpus/NAME, tests/fuzz/findings/NAME
 *     fuzz_NAME --self-test            goes beyond the bound; must not return
 *
 * An input that fails ends the process, as under libFuzzer; the case that has begun says which.
 */
#include "tests/fuzz/fuzz.h"

#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t greatest;

static void
run_file(const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *bytes = NULL;
    size_t length;

    if (!g_file_get_contents(path, &bytes, &length, &error)) {
        fprintf(stderr, "replay: %s\n", error->message);
        exit(2);
    }
    /* In memory of its own length, so that a sanitizer sees who reads behind it. */
    g_autofree uint8_t *exact = g_memdup2(bytes, length);
    LLVMFuzzerTestOneInput(exact ? exact : (const uint8_t *)"", length);
    greatest = MAX(greatest, bound_peak());
}

static int
compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Paths of the files in a folder, sorted; of none when there is no such folder. */
static GPtrArray *
list(const char *folder)
{
    GPtrArray *paths = g_ptr_array_new_with_free_func(g_free);
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir)))
        g_ptr_array_add(paths, g_build_filename(folder, name, NULL));
    g_clear_pointer(&dir, g_dir_close);
    g_ptr_array_sort(paths, compare);
    return paths;
}

static void
begin_case(const char *name)
{
    printf("[ RUN      ] %s\n", name);
    fflush(stdout);
}

static void
end_case(const char *name)
{
    printf("[       OK ] %s\n", name);
    fflush(stdout);
}

static void
run_corpus(const char *folder)
{
    g_autoptr(GPtrArray) paths = list(folder);

    if (paths->len == 0) {
        fprintf(stderr, "replay: '%s' has no files; run from the top of the tree\n", folder);
        exit(2);
    }
    begin_case("corpus_is_taken_or_refused");
    for (unsigned i = 0; i < paths->len; i++)
        run_file(paths->pdata[i]);
    printf("%u inputs, at most %zu of %zu bytes\n", paths->len, greatest, fuzz_bound_bytes);
    end_case("corpus_is_taken_or_refused");
}

static void
run_findings(const char *folder)
{
    g_autoptr(GPtrArray) paths = list(folder);

    for (unsigned i = 0; i < paths->len; i++) {
        g_autofree char *name = g_path_get_basename(paths->pdata[i]);
        begin_case(name);
        run_file(paths->pdata[i]);
        end_case(name);
    }
}

/* Keeps one byte more than is allowed. */
static int
exceed(void)
{
    bound_begin(fuzz_bound_bytes);
    char *volatile bytes = malloc(fuzz_bound_bytes + 1);
    if (bytes)
        bytes[0] = 1;
    bound_end();
    free(bytes);
    return 0;
}

static void
check_bound(const char *program)
{
    g_autofree char *command = g_strdup_printf("ulimit -c 0; exec %s --self-test 2>&1", program);
    char text[256] = "";
    bool was_said = false;

    begin_case("bound_that_is_exceeded_aborts");
    FILE *output = popen(command, "r");
    while (output && fgets(text, sizeof text, output))
        was_said |= g_str_has_prefix(text, "bound: ");
    int status = output ? pclose(output) : 0;
    if (!was_said || status == 0) {
        fprintf(stderr, "replay: %s --self-test ended with %d; it must be aborted\n", program,
                status);
        exit(1);
    }
    end_case("bound_that_is_exceeded_aborts");
}

int
main(int count_arguments, char **arguments)
{
    const char *base = strrchr(arguments[0], '/'), *name = strrchr(arguments[0], '_');

    if (count_arguments == 2 && strcmp(arguments[1], "--self-test") == 0)
        return exceed();
    for (int i = 1; i < count_arguments; i++) {
        if (g_file_test(arguments[i], G_FILE_TEST_IS_DIR))
            run_corpus(arguments[i]);
        else
            run_file(arguments[i]);
    }
    if (count_arguments > 1)
        return 0;
    name = name && name > base ? name + 1 : arguments[0];
    g_autofree char *corpus = g_build_filename("tests/fuzz/corpus", name, NULL);
    g_autofree char *findings = g_build_filename("tests/fuzz/findings", name, NULL);
    check_bound(arguments[0]);
    run_corpus(corpus);
    run_findings(findings);
    return 0;
}
