/* The part of NCCL that the program calls, for processes of one machine, over sockets.
 *
 * A communicator is a mesh of sockets, made while it is asked how it is. What a group sends and receives is queued
 * in a stream and done bit by bit whenever the stream is looked at, so that a hop is over only when its peers have
 * come. A peer that is gone shows as an error of the communicator, and what was queued is then never over. With
 * SIMT_NCCL_ERROR=N, groups behind the first N of a process find their peers gone.
 */
#include <nccl.h> /* before simt.h, whose gridDim it has for a name */

#include "simt.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct ncclComm {
    std::string name;
    int rank, listener;
    std::vector<int> peers; /* sockets, -1 where there is none yet */
    ncclResult_t state;
    bool aborted;
};

struct transfer {
    struct ncclComm *comm;
    cudaStream_t stream;
    int peer;
    bool sends;
    char *memory;
    size_t bytes, moved;
};

static std::vector<struct transfer> group;
static int depth;

/* ---- connecting ---- */

static struct sockaddr_un address_of(const struct ncclComm *comm, int rank, socklen_t *bytes)
{
    struct sockaddr_un address = {};
    address.sun_family = AF_UNIX; /* an abstract name: byte 0 of the path stays 0 */
    const int n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s.%d", comm->name.c_str(), rank);
    *bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    return address;
}

/* Ranks call those before them. */
static void call(struct ncclComm *comm, int rank)
{
    socklen_t bytes;
    const struct sockaddr_un address = address_of(comm, rank, &bytes);
    const int to = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(to, (const struct sockaddr *)&address, bytes) == 0 &&
        send(to, &comm->rank, sizeof comm->rank, MSG_NOSIGNAL) == sizeof comm->rank)
        comm->peers[(size_t)rank] = to;
    else
        close(to);
}

static void answer(struct ncclComm *comm)
{
    int who;
    for (int from; (from = accept(comm->listener, nullptr, nullptr)) >= 0;)
        if (recv(from, &who, sizeof who, MSG_WAITALL) == sizeof who)
            comm->peers[(size_t)who] = from;
}

static void connect_some(struct ncclComm *comm)
{
    bool all = true;
    answer(comm);
    for (int rank = 0; rank < (int)comm->peers.size(); rank++) {
        if (rank < comm->rank && comm->peers[(size_t)rank] < 0)
            call(comm, rank);
        all &= rank == comm->rank || comm->peers[(size_t)rank] >= 0;
    }
    comm->state = all ? ncclSuccess : ncclInProgress;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *out)
{
    static int made;
    snprintf(out->internal, sizeof out->internal, "simt-nccl-%d-%d", (int)getpid(), made++);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    if (config->blocking != 0)
        return ncclInvalidUsage;
    struct ncclComm *comm =
        new ncclComm{id.internal, rank, -1, std::vector<int>((size_t)ranks, -1), ncclInProgress, false};
    socklen_t bytes;
    const struct sockaddr_un address = address_of(comm, rank, &bytes);
    comm->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    *out = comm;
    if (bind(comm->listener, (const struct sockaddr *)&address, bytes) != 0 || listen(comm->listener, ranks) != 0)
        return ncclSystemError;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *out)
{
    if (comm->state == ncclInProgress)
        connect_some(comm);
    *out = comm->state;
    return ncclSuccess;
}

/* ---- groups ---- */

static ncclResult_t add(void *memory, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                        cudaStream_t stream, bool sends)
{
    if (type != ncclUint8 || depth == 0 || comm->state == ncclInProgress)
        return ncclInvalidUsage;
    if (peer < 0 || peer >= (int)comm->peers.size())
        return ncclInvalidArgument;
    group.push_back({comm, stream, peer, sends, (char *)memory, count, 0});
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *memory, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add(const_cast<void *>(memory), count, type, peer, comm, stream, true);
}

ncclResult_t ncclRecv(void *memory, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add(memory, count, type, peer, comm, stream, false);
}

/* As much as goes at once. */
static void move_some(struct transfer *t)
{
    const int to = t->comm->peers[(size_t)t->peer];
    while (t->moved < t->bytes && t->comm->state == ncclSuccess) {
        char *at = t->memory + t->moved;
        const ssize_t n = t->sends ? send(to, at, t->bytes - t->moved, MSG_DONTWAIT | MSG_NOSIGNAL)
                                   : recv(to, at, t->bytes - t->moved, MSG_DONTWAIT);
        if (n > 0)
            t->moved += (size_t)n;
        else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        else
            t->comm->state = ncclRemoteError;
    }
}

/* What a rank sends to itself. */
static void move_own(std::vector<struct transfer> &all, struct transfer *from)
{
    for (struct transfer &to : all)
        if (!to.sends && to.peer == from->peer && to.moved < to.bytes && to.bytes == from->bytes) {
            memmove(to.memory, from->memory, to.bytes);
            to.moved = from->moved = to.bytes;
            return;
        }
}

static bool move_all(std::vector<struct transfer> &all)
{
    bool over = true;
    if (all.front().comm->aborted)
        return true;
    simt::device_opens();
    for (struct transfer &t : all) {
        if (t.peer != t.comm->rank)
            move_some(&t);
        else if (t.sends && t.moved < t.bytes)
            move_own(all, &t);
    }
    simt::device_closes();
    for (const struct transfer &t : all)
        over &= t.moved == t.bytes;
    return over;
}

ncclResult_t ncclGroupStart()
{
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd()
{
    if (depth == 0)
        return ncclInvalidUsage;
    if (--depth > 0 || group.empty())
        return ncclSuccess;
    static int groups;
    const char *good = getenv("SIMT_NCCL_ERROR");
    if (good && groups >= atoi(good))
        group.front().comm->state = ncclRemoteError;
    groups++;
    const auto all = std::make_shared<std::vector<struct transfer>>();
    all->swap(group);
    simt::queue_until(all->front().stream, [all] { return move_all(*all); });
    return ncclSuccess;
}

/* ---- the end ---- */

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    return comm->state;
}

static void leave(struct ncclComm *comm)
{
    for (const int peer : comm->peers)
        if (peer >= 0)
            close(peer);
    close(comm->listener);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    leave(comm);
    delete comm;
    return ncclSuccess;
}

/* What is queued still looks at it, so it stays. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    comm->aborted = true;
    leave(comm);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t code)
{
    return code == ncclRemoteError    ? "remote process exited or there was a network error"
           : code == ncclSystemError  ? "unhandled system error"
           : code == ncclInvalidUsage ? "invalid usage"
                                      : "invalid argument";
}
