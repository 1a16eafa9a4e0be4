/* SPDX-License-Identifier: MIT */
/*
 * Senders on TLS links: a frame's pieces are gathered, sealed, and sent as a batch of records.
 *
 * The thread of the sender's ring. Pieces are copied before they are sealed: they are memory of a
 * guest that may run, and some ciphers read what they seal twice, so that a byte written meanwhile
 * would make a record that the peer has to take for forged. What has been accepted is counted by
 * whole records, in plain bytes: of a part of one the peer can make nothing.
 */
#include "transport/send.h"
#include "transport/session.h"

#include <errno.h>
#include <string.h>

/* A batch: as much as is sent by one operation. */
#define COUNT_RECORDS 8u

struct TransportSealer {
    TransportSession *session;
    /* What of the message is not sealed yet: from offset of iov on. */
    const struct iovec *iov;
    size_t offset;
    uint64_t unsealed_bytes;
    /* The batch in flight. */
    unsigned count, next; /* records in it; the first that is not accepted wholly */
    size_t sent, filled;
    struct {
        size_t end; /* in bytes[] */
        size_t plain_bytes;
    } records[COUNT_RECORDS];
    uint8_t plain[SESSION_PLAIN_BYTES];
    uint8_t bytes[(COUNT_RECORDS + 1) * SESSION_RECORD_BYTES];
};

/* Returns how many bytes of the message are in plain[] now. */
static size_t
gather(TransportSealer *sealer)
{
    size_t gathered = 0;

    while (gathered < sizeof sealer->plain && sealer->unsealed_bytes != 0) {
        const struct iovec *iov = sealer->iov;
        size_t length = MIN(iov->iov_len - sealer->offset, sizeof sealer->plain - gathered);

        memcpy(sealer->plain + gathered, (const uint8_t *)iov->iov_base + sealer->offset, length);
        gathered += length;
        sealer->unsealed_bytes -= length;
        sealer->offset += length;
        if (sealer->offset == iov->iov_len) {
            sealer->iov++;
            sealer->offset = 0;
        }
    }
    return gathered;
}

static void
send_rest(TransportSender *sender)
{
    TransportSealer *sealer = sender->sealer;
    struct io_uring_sqe *sqe = transport_ring_sqe(sender->ring);

    io_uring_prep_send(sqe, sender->link->fd, sealer->bytes + sealer->sent,
                       sealer->filled - sealer->sent, MSG_WAITALL | MSG_NOSIGNAL);
    transport_ring_start(sender->ring, &sender->op, sqe);
}

static void
send_batch(TransportSender *sender)
{
    TransportSealer *sealer = sender->sealer;

    sealer->count = sealer->next = 0;
    sealer->sent = sealer->filled = 0;
    while (sealer->count < COUNT_RECORDS && sealer->unsealed_bytes != 0) {
        size_t plain_bytes = gather(sealer), length;

        if (!transport_session_seal(sealer->session, sealer->plain, plain_bytes,
                                    sealer->bytes + sealer->filled, &length, &sender->error))
            return;
        sealer->filled += length;
        sealer->records[sealer->count].end = sealer->filled;
        sealer->records[sealer->count++].plain_bytes = plain_bytes;
    }
    send_rest(sender);
}

static void
start_sealed(TransportSender *sender)
{
    TransportSealer *sealer = sender->sealer;

    sealer->iov = sender->message.msg_iov;
    sealer->offset = 0;
    sealer->unsealed_bytes = sender->left_bytes;
    send_batch(sender);
}

static void
account(TransportSender *sender, size_t length)
{
    TransportSealer *sealer = sender->sealer;

    sealer->sent += length;
    while (sealer->next < sealer->count && sealer->records[sealer->next].end <= sealer->sent) {
        sender->accepted_bytes += sealer->records[sealer->next].plain_bytes;
        sender->left_bytes -= sealer->records[sealer->next].plain_bytes;
        sealer->next++;
    }
}

static void
sealed_done(TransportOp *op, int result)
{
    TransportSender *sender = (TransportSender *)op;
    TransportSealer *sealer = sender->sealer;

    if (result > 0)
        account(sender, (size_t)result);
    if (op->is_closing || sender->left_bytes == 0)
        return;
    if (result == -EAGAIN) /* somebody made the shared file description non-blocking */
        transport_link_make_blocking(sender->link->fd);
    if (result <= 0 && result != -EINTR && result != -EAGAIN)
        transport_send_failed(sender, result < 0 ? -result : EPIPE);
    else if (sealer->sent < sealer->filled)
        send_rest(sender);
    else
        send_batch(sender);
}

void
transport_sealer_attach(TransportSender *sender)
{
    sender->sealer = g_new0(TransportSealer, 1);
    sender->sealer->session = sender->link->session;
    sender->start = start_sealed;
    sender->op.done = sealed_done;
}

void
transport_sealer_free(TransportSealer *sealer)
{
    if (sealer == NULL)
        return;
    explicit_bzero(sealer->plain, sizeof sealer->plain);
    g_free(sealer);
}
