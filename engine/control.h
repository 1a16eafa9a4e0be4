/* SPDX-License-Identifier: MIT */
/*
 * A chapter of faultline.h, which includes it: the monitor, QMP and HMP over bytes that the VMM
 * carries. Thread: the control thread, always the same.
 */
#ifndef FAULTLINE_CONTROL_H
#define FAULTLINE_CONTROL_H

#include "guest.h"

typedef struct Faultline Faultline;
typedef struct FaultlineMonitor FaultlineMonitor;
typedef struct FaultlineSession FaultlineSession;

/* What the monitor needs of its VMM. */
typedef struct FaultlineMonitorHost {
    const char *name;           /* of the guest, for query-name */
    void (*quit)(void *opaque); /* end the process soon; must return */

    /* "shutdown" or "internal-error" when the guest has ended by itself and cannot run on; NULL: it
     * can. The function may be NULL: it always can. */
    const char *(*guest_end)(void *opaque);

    /* pmemsave: writes guest physical memory to a file, which is made or emptied. NULL: there is no
     * such command. Errors: of FAULTLINE_ERROR. */
    bool (*save_memory)(void *opaque, uint64_t address, uint64_t length_bytes, const char *path,
                        GError **error);

    /* x-peer-lost: somebody knows that the other side's process is gone for good. NULL: there is no
     * such command. Errors: of FAULTLINE_ERROR. */
    bool (*peer_lost)(void *opaque, GError **error);

    /* x-take-back: reads the destination's record in a directory, and hands its words to
     * faultline_take_back(); has_ended: somebody knows that its process is gone. NULL: there is no
     * such command. Errors: of FAULTLINE_ERROR. */
    bool (*take_back)(void *opaque, const char *directory, bool has_ended, GError **error);

    /* Events of the Faultline were taken and told to the clients, by faultline_monitor_pump() or by
     * a client's command, behind which faultline_event_fd() says nothing any more. NULL: nobody
     * wants to know. */
    void (*happened)(void *opaque);
} FaultlineMonitorHost;

/* One monitor a Faultline. It drains faultline_next_event() itself: call faultline_monitor_pump()
 * whenever faultline_event_fd() is readable. Thread: the control thread, always the same. */
FaultlineMonitor *faultline_monitor_new(Faultline *faultline, const FaultlineMonitorHost *host,
                                        void *opaque);
void faultline_monitor_free(FaultlineMonitor *monitor);
/* Also tells, once, that the guest has ended by itself: SHUTDOWN and STOP; so call it when
 * guest_end() may have changed. */
void faultline_monitor_pump(FaultlineMonitor *monitor);

/* An event of the VMM's own to every session: a name, and data as a JSON object or NULL. */
void faultline_monitor_send_event(FaultlineMonitor *monitor, const char *name, const char *data);

/* The last migrate-incoming was given `exit-on-error`: false: the program shall not end when it
 * fails. */
bool faultline_monitor_stays_on_error(const FaultlineMonitor *monitor);

/* One QMP client. write is called with whole lines, greeting first, and must not block; it returns
 * false when the client cannot take more, which ends the session. */
FaultlineSession *faultline_session_new(FaultlineMonitor *monitor,
                                        bool (*write)(void *opaque, const char *bytes,
                                                      size_t length_bytes),
                                        void *opaque);
void faultline_session_free(FaultlineSession *session);

/* For getfd and add-fd. take_fd: hands over the oldest descriptor that came by SCM_RIGHTS and was
 * not taken yet, close-on-exec; -1: there is none. Called with the session's opaque. */
void faultline_session_accept_fds(FaultlineSession *session, int (*take_fd)(void *opaque));

/* Bytes from the client, cut anywhere. false: the session is over (hostile or broken input, or the
 * client cannot take more); close and free it. */
bool faultline_session_feed(FaultlineSession *session, const char *bytes, size_t length_bytes);

/* One HMP command line, which is refused if it is not UTF-8 -> its output (g_free). */
char *faultline_monitor_hmp(FaultlineMonitor *monitor, const char *line);

#endif
