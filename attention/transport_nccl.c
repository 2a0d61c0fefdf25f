/* Hops by NCCL: a send to the next rank and a receive from the one before, in one group, in a stream of their own,
 * so that the next keys are under way while the GPU attends to the last ones. The communicator does not block: a
 * peer on another node that has died shows as an error of the communicator, which is asked whenever a hop is looked
 * at. One on the same node does not, so a hop has a deadline as well.
 *
 * A hop that is over here has left this rank's buffer, but may still be in NCCL's hands on its way to the next
 * rank: the communicator is closed in order, unless something went wrong before.
 */
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <sched.h>
#include <stdlib.h>

#include "attention/transport_nccl.h"
#include "base/clock.h"
#include "base/gpu.h"

/* Seconds that ranks wait for each other at the beginning, in a hop and at the end. A rank that still computes
 * keeps the others waiting for a segment's attention in one layer, which takes no minutes. */
enum { CONNECT_SECONDS = 300, HOP_SECONDS = 900, CLOSE_SECONDS = 20 };

struct transport_nccl {
    struct transport base;
    ncclComm_t nccl;
    cudaStream_t stream;
    cudaEvent_t over;
    int next, previous;
    double hop_seconds; /* a hop's deadline */
    bool connected;
    bool in_flight; /* also after a hop that failed */
    char *bytes;    /* on the GPU: one to send, one to receive, of the first hop */
    double begun;   /* the hop, by clock_seconds() */
};

static int nccl_check(ncclResult_t code, const char *what, struct error *err)
{
    if (code == ncclSuccess || code == ncclInProgress)
        return 0;
    return error_set(err, ERROR_CLUSTER, "%s: %s", what, ncclGetErrorString(code));
}

/* What the communicator says of itself and of its peers. */
static int check_peers(struct transport_nccl *self, bool *busy, struct error *err)
{
    ncclResult_t state = ncclSuccess;
    if (nccl_check(ncclCommGetAsyncError(self->nccl, &state), "asking NCCL", err) < 0)
        return -1;
    *busy = state == ncclInProgress;
    return nccl_check(state, "a rank of the ring", err);
}

static int check_deadline(double begun, double seconds, struct error *err)
{
    return clock_seconds() - begun > seconds
               ? error_set(err, ERROR_CLUSTER, "a rank of the ring has not come in %.0f seconds", seconds)
               : 0;
}

/* Until what was asked of the communicator is queued; an error after so many seconds. */
static int wait_queued(struct transport_nccl *self, double seconds, struct error *err)
{
    const double begun = clock_seconds();
    for (bool busy = true; busy; sched_yield()) /* to NCCL's own threads, which may have but this core */
        if (check_peers(self, &busy, err) < 0 || (busy && check_deadline(begun, seconds, err) < 0))
            return -1;
    return 0;
}

static int nccl_start(struct transport *base, const struct transport_hop *hop, struct error *err)
{
    struct transport_nccl *self = (struct transport_nccl *)base;
    if (nccl_check(ncclGroupStart(), "a hop of the ring", err) < 0)
        return -1;
    self->in_flight = true;
    self->begun = clock_seconds();
    int status = 0;
    struct error later; /* the first reason is the one to tell */
    if (hop->send_bytes > 0)
        status = nccl_check(ncclSend(hop->send, hop->send_bytes, ncclUint8, self->next, self->nccl, self->stream),
                            "sending round the ring", err);
    if (status == 0 && hop->receive_bytes > 0)
        status = nccl_check(
            ncclRecv(hop->receive, hop->receive_bytes, ncclUint8, self->previous, self->nccl, self->stream),
            "receiving round the ring", err);
    if (nccl_check(ncclGroupEnd(), "a hop of the ring", status == 0 ? err : &later) < 0 || status < 0 ||
        wait_queued(self, self->hop_seconds, err) < 0)
        return -1;
    return gpu_check(cudaEventRecord(self->over, self->stream), "a hop of the ring", err);
}

static int nccl_test(struct transport *base, bool *over, struct error *err)
{
    struct transport_nccl *self = (struct transport_nccl *)base;
    bool busy;
    *over = !self->in_flight;
    if (*over)
        return 0;
    const cudaError_t code = cudaEventQuery(self->over);
    if (code == cudaErrorNotReady)
        return check_peers(self, &busy, err) < 0 ? -1 : check_deadline(self->begun, self->hop_seconds, err);
    if (gpu_check(code, "a hop of the ring", err) < 0)
        return -1;
    self->in_flight = false;
    *over = true;
    return 0;
}

static int nccl_finish(struct transport *base, struct error *err)
{
    for (bool over = false; !over; sched_yield())
        if (nccl_test(base, &over, err) < 0)
            return -1;
    return 0;
}

/* What is on its way goes out first; a peer that is dead or in trouble must not hold us. */
static void disconnect(struct transport_nccl *self)
{
    struct error none;
    if (self->connected && !self->in_flight &&
        nccl_check(ncclCommFinalize(self->nccl), "leaving the ring", &none) == 0 &&
        wait_queued(self, CLOSE_SECONDS, &none) == 0)
        ncclCommDestroy(self->nccl);
    else
        ncclCommAbort(self->nccl);
}

static void nccl_free(struct transport *base)
{
    struct transport_nccl *self = (struct transport_nccl *)base;
    if (!self)
        return;
    if (self->nccl)
        disconnect(self);
    cudaFree(self->bytes);
    if (self->over)
        cudaEventDestroy(self->over);
    if (self->stream)
        cudaStreamDestroy(self->stream);
    free(self);
}

/* What a rank needs of its own. */
static int take_parts(struct transport_nccl *self, const struct comm *group, ncclUniqueId *id, struct error *err)
{
    if (gpu_check(cudaStreamCreateWithFlags(&self->stream, cudaStreamNonBlocking), "a stream for NCCL", err) < 0 ||
        gpu_check(cudaEventCreateWithFlags(&self->over, cudaEventDisableTiming), "an event for NCCL", err) < 0 ||
        gpu_check(cudaMalloc((void **)&self->bytes, 2), "two bytes for NCCL", err) < 0)
        return -1;
    return group->rank == 0 ? nccl_check(ncclGetUniqueId(id), "setting up NCCL", err) : 0;
}

/* NCCL makes its connections, and takes memory for them, in the first hop. So one is made while there is another
 * way to go, and before the rest of the memory is given away. */
static int try_hop(struct transport_nccl *self, struct error *err)
{
    const struct transport_hop hop = {self->bytes, 1, self->bytes + 1, 1};
    return nccl_start(&self->base, &hop, err) == 0 ? nccl_finish(&self->base, err) : -1;
}

/* All ranks connect, or none: one that could not begin would be waited for in vain. self is NULL on a rank that had
 * no memory for it. */
static int connect_ranks(struct transport_nccl *self, const struct comm *group, struct error *err)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (comm_agree(group, self ? take_parts(self, group, &id, err) : -1, err) < 0 ||
        comm_broadcast(group, &id, sizeof id, 0, err) < 0 ||
        comm_agree(group,
                   nccl_check(ncclCommInitRankConfig(&self->nccl, group->size, id, group->rank, &config),
                              "connecting the ring by NCCL", err),
                   err) < 0 ||
        wait_queued(self, CONNECT_SECONDS, err) < 0 || try_hop(self, err) < 0)
        return -1;
    self->connected = true;
    return 0;
}

struct transport *transport_nccl_create_patient(const struct comm *group, double hop_seconds, struct error *err)
{
    struct transport_nccl *self = calloc(1, sizeof *self);
    if (self)
        *self = (struct transport_nccl){
            .base =
                {.name = "nccl", .start = nccl_start, .test = nccl_test, .finish = nccl_finish, .free = nccl_free},
            .next = (group->rank + 1) % group->size,
            .previous = (group->rank + group->size - 1) % group->size,
            .hop_seconds = CONNECT_SECONDS,
        };
    else
        error_set(err, ERROR_RESOURCE, "no memory for the ring's transport");
    if (connect_ranks(self, group, err) == 0) {
        self->hop_seconds = hop_seconds;
        return &self->base;
    }
    nccl_free((struct transport *)self);
    return NULL;
}

struct transport *transport_nccl_create(const struct comm *group, const struct device *device, struct error *err)
{
    (void)device; /* the one that this thread works with */
    return transport_nccl_create_patient(group, HOP_SECONDS, err);
}
