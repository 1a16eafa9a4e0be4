/* SPDX-License-Identifier: MIT */
/*
 * Two processes for the two sides of a measurement: forked, pinned, put into their namespaces,
 * waited for. Coordinating process, which has no threads when it forks.
 */
#include "bench/move.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ERROR_BYTES 600u

G_NORETURN static void
run_child(const ForkedChild *child, int link_fd, unsigned limit_s, pid_t parent)
{
    g_autoptr(GError) failed = NULL;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    alarm(limit_s);
    bool done = (!child->netns || netns_enter(child->netns, child->netns_side, &failed)) &&
                placement_pin(child->cpus, &failed) &&
                child->body(child->context, link_fd, &failed);
    if (!done)
        g_snprintf(child->error, ERROR_BYTES, "%s: %s", child->name,
                   failed ? failed->message : "failed without a reason");
    fflush(NULL);
    _exit(done ? 0 : 1);
}

static bool
take_status(const ForkedChild *child, int status, unsigned limit_s, GError **error)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (error && *error)
        return false;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "%s: not over after %u s; give --limit a higher value", child->name, limit_s);
    else if (WIFSIGNALED(status))
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "%s: died of signal %d (%s)",
                    child->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "%s", child->error);
    return false;
}

bool
forked_pair_run(ForkedChild children[2], unsigned limit_s, GError **error)
{
    int fds[2];
    pid_t ids[2], parent = getpid();
    bool done = true;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "start sides: socketpair: %s",
                    g_strerror(errno));
        return false;
    }
    fflush(NULL);
    for (unsigned i = 0; i < 2; i++) {
        ids[i] = fork();
        if (ids[i] == 0) {
            close(fds[!i]);
            run_child(&children[i], fds[i], limit_s, parent);
        }
    }
    close(fds[0]);
    close(fds[1]);
    for (unsigned i = 0; i < 2; i++) {
        int status = 0;
        if (ids[i] < 0) {
            g_clear_error(error);
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "start %s: fork failed",
                        children[i].name);
            done = false;
        } else if (waitpid(ids[i], &status, 0) == ids[i]) {
            done = take_status(&children[i], status, limit_s, error) && done;
        }
    }
    return done;
}

const char *
move_host(const Netns *netns)
{
    return netns ? netns->addresses[1] : "127.0.0.1";
}

char *
move_socket_path(void)
{
    static unsigned count;
    return g_strdup_printf("%s/faultline-bench-%d-%u.sock", g_get_tmp_dir(), (int)getpid(),
                           count++);
}
