/* SPDX-License-Identifier: MIT */
/*
 * A ring: waiting, waking and watching, and the life of the operations on it.
 *
 * Only the thread that made a ring uses it, except for transport_ring_notify(). What is asked of
 * the kernel, and what its answers mean, is left to send.c, receive.c, connect.c and listen.c;
 * whether there may be a ring at all to setup.c.
 */
#include "transport/ring.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* More than the operations one thread has: each channel two, each watch one. */
#define COUNT_ENTRIES 64u

/* Looks of a spin between two of the clock. */
#define COUNT_LOOKS 32u

/* COUNT_LOOKS take about 1 us; who finds that they took this long was not running. */
#define INTERRUPTED_NS 10000u

typedef struct {
    TransportOp op;
    TransportRing *ring;
    int fd;
    bool *ready; /* may be NULL */
} Watch;

struct TransportRing {
    /* Set before the ring is used. */
    pthread_t owner;
    int notify_fd;

    /* The ring's thread. */
    struct io_uring uring;
    GPtrArray *watches;
    TransportOp *queued; /* list */
    unsigned count_lookers;
    bool has_left_news; /* since the last reap */
    bool has_happened;  /* a completion was reaped that the thread may not know of */

    /* Shared: exchanged by notify (release) and by wait (acquire). */
    bool is_notified;
};

GQuark
transport_error_quark(void)
{
    return g_quark_from_static_string("transport-error");
}

static bool
is_own_thread(const TransportRing *ring)
{
    return pthread_equal(ring->owner, pthread_self()) != 0;
}

/* ---- Operations ---- */

struct io_uring_sqe *
transport_ring_sqe(TransportRing *ring)
{
    struct io_uring_sqe *sqe;

    g_assert(is_own_thread(ring));
    while ((sqe = io_uring_get_sqe(&ring->uring)) == NULL)
        io_uring_submit_and_get_events(&ring->uring);
    return sqe;
}

void
transport_ring_queue(TransportRing *ring, TransportOp *op)
{
    op->is_in_flight = op->is_queued = true;
    op->next_queued = ring->queued;
    ring->queued = op;
}

static void
take_queued(TransportRing *ring)
{
    while (ring->queued != NULL) {
        TransportOp *op = ring->queued;
        struct io_uring_sqe *sqe = transport_ring_sqe(ring);

        ring->queued = op->next_queued;
        op->is_queued = false;
        op->prepare(op, sqe);
        io_uring_sqe_set_data(sqe, op);
    }
}

static void
unqueue(TransportRing *ring, TransportOp *op)
{
    TransportOp **at = &ring->queued;

    while (*at != op)
        at = &(*at)->next_queued;
    *at = op->next_queued;
    op->is_queued = op->is_in_flight = false;
}

void
transport_ring_start(TransportRing *ring, TransportOp *op, struct io_uring_sqe *sqe)
{
    io_uring_sqe_set_data(sqe, op);
    op->is_in_flight = true;
    take_queued(ring);
    /* What the ring has to run costs least now, while the answer to this is still to come. When the
     * kernel has no memory, the entry stays queued: the wait submits it. */
    io_uring_submit_and_get_events(&ring->uring);
}

bool
transport_ring_has_news(const TransportRing *ring)
{
    return io_uring_cq_ready(&ring->uring) != 0 ||
           (IO_URING_READ_ONCE(*ring->uring.sq.kflags) & IORING_SQ_TASKRUN) != 0;
}

void
transport_ring_count_lookers(TransportRing *ring, int change)
{
    ring->count_lookers += (unsigned)change;
}

void
transport_ring_reap(TransportRing *ring, const TransportOp *self)
{
    struct io_uring_cqe *cqe;

    ring->has_left_news = false;
    while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        TransportOp *op = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        bool has_more = (cqe->flags & IORING_CQE_F_MORE) != 0;

        io_uring_cqe_seen(&ring->uring, cqe);
        if (op == NULL) /* of a cancellation */
            continue;
        ring->has_happened |= op != self;
        op->is_in_flight = has_more;
        op->done(op, result);
    }
}

bool
transport_ring_cancel(TransportRing *ring, TransportOp *op)
{
    struct io_uring_sqe *sqe;

    op->is_closing = true;
    transport_ring_reap(ring, NULL);
    if (!op->is_in_flight)
        return true;
    if (!is_own_thread(ring))
        return false;
    if (op->is_queued) {
        unqueue(ring, op);
        return true;
    }
    sqe = transport_ring_sqe(ring);
    io_uring_prep_cancel(sqe, op, 0);
    io_uring_sqe_set_data(sqe, NULL);
    while (op->is_in_flight) {
        io_uring_submit_and_wait(&ring->uring, 1);
        transport_ring_reap(ring, NULL);
    }
    return true;
}

/* ---- Watches ---- */

static void
arm_watch(Watch *watch)
{
    struct io_uring_sqe *sqe = transport_ring_sqe(watch->ring);

    io_uring_prep_poll_multishot(sqe, watch->fd, POLLIN);
    transport_ring_start(watch->ring, &watch->op, sqe);
}

/* The kernel ends a multishot poll when it is short of completion entries, for one. */
static void
watch_done(TransportOp *op, int result)
{
    Watch *watch = (Watch *)op;

    if (watch->ready != NULL)
        *watch->ready = true;
    if (!op->is_in_flight && !op->is_closing && result >= 0 && !(result & POLLNVAL))
        arm_watch(watch);
}

bool
transport_ring_watch(TransportRing *ring, int fd, bool *ready, GError **error)
{
    Watch *watch;
    struct pollfd state = {.fd = fd, .events = POLLIN};

    if (poll(&state, 1, 0) < 0 || (state.revents & POLLNVAL) != 0) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST,
                    "cannot watch descriptor %d: it is not open: pass one that is", fd);
        return false;
    }
    watch = g_new0(Watch, 1);
    *watch = (Watch){.op.done = watch_done, .ring = ring, .fd = fd, .ready = ready};
    if (ready != NULL)
        *ready = true;
    g_ptr_array_add(ring->watches, watch);
    arm_watch(watch);
    return true;
}

/* ---- The ring ---- */

TransportRing *
transport_ring_new(GError **error)
{
    g_autofree TransportRing *ring = g_new0(TransportRing, 1);

    ring->owner = pthread_self();
    ring->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ring->notify_fd < 0) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST,
                    "cannot make an eventfd for a ring: %s: raise the limit of open files "
                    "(ulimit -n)",
                    g_strerror(errno));
        return NULL;
    }
    if (!transport_setup(&ring->uring, COUNT_ENTRIES, error)) {
        close(ring->notify_fd);
        return NULL;
    }
    /* Saves the look-up of the ring's descriptor in each call; goes without on old kernels. */
    io_uring_register_ring_fd(&ring->uring);
    ring->watches = g_ptr_array_new_with_free_func(g_free);
    if (!transport_ring_watch(ring, ring->notify_fd, NULL, error)) {
        transport_ring_free(ring);
        g_steal_pointer(&ring);
        return NULL;
    }
    return g_steal_pointer(&ring);
}

void
transport_ring_free(TransportRing *ring)
{
    if (ring == NULL)
        return;
    /* The kernel ends a closed ring's polls in the background; who closes a watched descriptor next
     * wants it gone now. From another thread it has to be the background. */
    for (unsigned i = 0; i < ring->watches->len && is_own_thread(ring); i++)
        transport_ring_cancel(ring, &((Watch *)ring->watches->pdata[i])->op);
    io_uring_queue_exit(&ring->uring);
    g_ptr_array_unref(ring->watches);
    close(ring->notify_fd);
    g_free(ring);
}

static uint64_t
monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The acquire pairs with notify: what its caller did before is seen by the one that waited. */
static bool
take_notification(TransportRing *ring)
{
    return __atomic_exchange_n(&ring->is_notified, false, __ATOMIC_ACQUIRE);
}

static void
sleep_until(TransportRing *ring, uint64_t deadline_ns)
{
    uint64_t now_ns = deadline_ns != 0 ? monotonic_ns() : 0;
    uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    struct __kernel_timespec left = {.tv_sec = (long long)(left_ns / 1000000000u),
                                     .tv_nsec = (long long)(left_ns % 1000000000u)};
    struct io_uring_cqe *cqe;

    /* A return for no reason is allowed, so EINTR and the like need no loop. */
    io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, deadline_ns != 0 ? &left : NULL, NULL);
    transport_ring_reap(ring, NULL);
}

void
transport_ring_wait(TransportRing *ring, uint64_t deadline_ns)
{
    g_assert(is_own_thread(ring));
    take_queued(ring);
    transport_ring_reap(ring, NULL);
    if (!take_notification(ring) && !ring->has_happened) {
        /* Submits as well, in the same call. */
        sleep_until(ring, deadline_ns);
        take_notification(ring);
    } else if (io_uring_sq_ready(&ring->uring) != 0) {
        io_uring_submit(&ring->uring);
    }
    ring->has_happened = false;
}

/* Whether a look at the ring would find something; reads shared memory only. */
static bool
has_news(const TransportRing *ring)
{
    return __atomic_load_n(&ring->is_notified, __ATOMIC_RELAXED) || ring->has_happened ||
           transport_ring_has_news(ring);
}

/* Never left twice in a row: who looks may not be looking. */
static void
leave_or_reap(TransportRing *ring)
{
    bool leave = ring->count_lookers != 0 && !ring->has_left_news;

    if (!leave)
        transport_ring_reap(ring, NULL);
    ring->has_left_news = leave;
}

bool
transport_ring_spin(TransportRing *ring, uint64_t spin_ns, bool *ret_was_interrupted)
{
    uint64_t now_ns = monotonic_ns(), end_ns = now_ns + spin_ns;
    bool is_hit = false;

    g_assert(is_own_thread(ring));
    *ret_was_interrupted = false;
    take_queued(ring);
    if (io_uring_sq_ready(&ring->uring) != 0)
        io_uring_submit(&ring->uring);
    while (now_ns < end_ns) {
        uint64_t before_ns = now_ns;
        for (unsigned i = 0; i < COUNT_LOOKS && !is_hit; i++) {
            is_hit = has_news(ring);
            if (!is_hit)
                __builtin_ia32_pause();
        }
        if (is_hit)
            break;
        now_ns = monotonic_ns();
        *ret_was_interrupted |= now_ns - before_ns >= INTERRUPTED_NS;
    }
    if (!is_hit)
        return false;
    leave_or_reap(ring);
    take_notification(ring);
    ring->has_happened = false;
    return true;
}

/*
 * The eventfd is never read: each write wakes the multishot poll anew, and its count does not
 * overflow in this universe. Who finds is_notified set need not write: the one that set it has
 * written or is about to, and the waiter sleeps only if it saw it clear.
 */
void
transport_ring_notify(TransportRing *ring)
{
    uint64_t one = 1;

    if (__atomic_exchange_n(&ring->is_notified, true, __ATOMIC_ACQ_REL))
        return;
    while (write(ring->notify_fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}
