/* A transport moves packed keys one hop round the ring: to the next rank, from the one before.
 *
 * transport->start() posts the send and the receive of a hop and returns at once; test() pushes the transfer on
 * and says whether it is over (call it between tiles: Open MPI moves nothing by itself); finish() waits.
 * One hop is in flight at a time. Sizes are byte counts above 2^31, too: a transport splits them as it must.
 * Both buffers are left alone by the caller until the hop is over.
 */
#ifndef LONGHAUL_ATTENTION_TRANSPORT_H
#define LONGHAUL_ATTENTION_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/comm.h"
#include "base/error.h"

struct transport_hop {
    const void *send;
    size_t send_bytes;
    void *receive;
    size_t receive_bytes; /* exactly what the neighbour sends */
};

struct transport {
    const char *name; /* "mpi" */
    int (*start)(struct transport *self, const struct transport_hop *hop, struct error *err);
    int (*test)(struct transport *self, bool *over, struct error *err);
    int (*finish)(struct transport *self, struct error *err);
    void (*free)(struct transport *self);
};

/* Hops by MPI point-to-point messages within the ring group. Every rank of it calls this, and self->free() at the
 * end, with no hop in flight. */
struct transport *transport_mpi_create(const struct comm *group, struct error *err);

#endif
