/* A transport moves a buffer (packed keys, queries, partial sums) one hop round the ring: to the next rank, from
 * the one before.
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
#include "base/device.h"
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

/* The transport for buffers on that device: MPI for the host's memory; NCCL where every rank of the group has a GPU
 * of its own; else MPI by way of the host's memory. Every rank of the group calls this, and self->free() at the
 * end, with no hop in flight. most_bytes: of a hop, either way. The choice is logged. */
struct transport *transport_create(const struct comm *group, const struct device *device, size_t most_bytes,
                                   struct error *err);

/* Hops by MPI point-to-point messages within the ring group. */
struct transport *transport_mpi_create(const struct comm *group, struct error *err);

/* The same for buffers that the host cannot reach: what is sent is copied to the host's memory first, what arrives
 * is copied from it. */
struct transport *transport_staged_create(const struct comm *group, const struct device *device, size_t most_bytes,
                                          struct error *err);

/* Hops by ncclSend and ncclRecv in a stream of their own. NULL with ERROR_USAGE in a program built without NCCL. */
struct transport *transport_nccl_create(const struct comm *group, const struct device *device, struct error *err);

#endif
