/* SPDX-License-Identifier: MIT */
/*
 * The scene of one pair test: a temporary directory and the `faultline run` processes in it. What a
 * test starts ends with its scene, also when an assertion leaves the test half way, and on a
 * failure the teardown shows what each process said last.
 *
 * Everything here fails the test (cmocka) instead of returning an error. Deadlines are generous and
 * bound a hang; nothing is ever expected to be fast. One thread.
 */
#ifndef TESTS_PAIR_SCENE_H
#define TESTS_PAIR_SCENE_H

#include "tests/pair/qmp.h"

#include <stdint.h>
#include <sys/types.h>

#define DEADLINE_S 240

typedef struct Scene {
    const void *subject; /* the test's initial state: what it is about */
    char *directory;
    GPtrArray *vms;
    unsigned count_started;
    bool failed;
    int64_t began_us;
    int64_t huge_pages_before; /* vm.nr_hugepages to restore; -1: untouched */
} Scene;

/* One `faultline run`. */
typedef struct Vm {
    Scene *scene;
    char *label; /* "source-1" */
    pid_t pid;   /* 0: reaped */
    int wait_status;
    char *output, *verdict, *socket; /* paths */
    Qmp *qmp;
} Vm;

int scene_setup(void **state);
int scene_teardown(void **state);

/* Ends the test; format as printf. */
void scene_fail(Scene *scene, const char *format, ...) G_GNUC_PRINTF(2, 3) G_GNUC_NORETURN;

/* Ends the test as skipped, with the reason printed. */
void scene_skip(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* Skips unless this host and this run can have the guest ("kvm", "threads"). */
void scene_need_guest(const char *guest);

/* Raises vm.nr_hugepages by count until the teardown, or skips. */
void scene_need_huge_pages(Scene *scene, uint64_t count);

/* Skips unless the host has that much memory to spare. */
void scene_need_memory(uint64_t bytes);

/* arguments: what follows `faultline run`, without --qmp and --verdict; NULL-terminated. Waits
 * until the control socket answers. */
Vm *scene_start(Scene *scene, const char *role, const char *const *arguments);

/* Skips when such a machine cannot be made here: with what the program says about it. */
void scene_need_start(Scene *scene, const char *const *arguments);

/* The program beside this test. Free with g_free. */
char *scene_program(void);

/* Where the destination listens, as it printed it. Free with g_free. */
char *vm_listening_at(Vm *vm);

/* Runs a QMP command that must succeed; arguments is JSON or NULL. Free with json_node_unref. */
JsonNode *vm_call(Vm *vm, const char *command, const char *arguments);
void vm_do(Vm *vm, const char *command, const char *arguments);

/* Runs a QMP command that must be refused. */
void vm_must_refuse(Vm *vm, const char *command, const char *arguments);

/* query-migrate's status, or "none". Free with g_free. */
char *vm_status(Vm *vm);

/* A number of query-migrate; path "ram.dirty-sync-count". 0 where it does not exist. */
int64_t vm_number(Vm *vm, const char *path);

/* Waits until query-migrate says status; fails when it says another one that is final. */
void vm_wait_status(Vm *vm, const char *status);

/* Waits until the number is at least that, while the migration runs. */
void vm_wait_number(Vm *vm, const char *path, int64_t least);

/* Waits for query-status to answer that. */
void vm_wait_run_state(Vm *vm, const char *run_state);

/* How many checks the guest counts; 0 before the first. Fails when it found a wrong byte. */
uint64_t vm_checks(Vm *vm);

/* Waits until the guest has made that many more checks. */
void vm_wait_checks(Vm *vm, uint64_t more);

/* Kills the process with SIGKILL and reaps it. */
void vm_kill(Vm *vm);

/* Says quit, waits for the end; the exit status must be 0. */
void vm_quit(Vm *vm);

/* Waits for the process to end by itself; returns its exit code, fails when a signal ended it. */
int vm_wait_exit(Vm *vm);

#endif
