#include "base/comm.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/device.h"
#include "base/line.h"
#include "base/num.h"

/* MPI counts are ints: what is larger goes in pieces of this many bytes. */
static const size_t PIECE_BYTES = (size_t)1 << 30;

enum { SHARED_ALIGN = 64 };

int comm_check(int code, const char *what, struct error *err)
{
    if (code == MPI_SUCCESS)
        return 0;
    char reason[MPI_MAX_ERROR_STRING + 1];
    int length = 0;
    if (MPI_Error_string(code, reason, &length) != MPI_SUCCESS)
        snprintf(reason, sizeof reason, "MPI error %d", code);
    return error_set(err, ERROR_CLUSTER, "%s: %s", what, reason);
}

/* Make MPI return its errors to us and read rank and size. */
static int comm_adopt(MPI_Comm mpi, struct comm *out, struct error *err)
{
    out->mpi = mpi;
    if (comm_check(MPI_Comm_set_errhandler(mpi, MPI_ERRORS_RETURN), "setting up a group of ranks", err) < 0 ||
        comm_check(MPI_Comm_rank(mpi, &out->rank), "asking for this rank's number", err) < 0)
        return -1;
    return comm_check(MPI_Comm_size(mpi, &out->size), "asking for the number of ranks", err);
}

/* The number of tasks of the Slurm step that srun made of this very process; 0 when it was not srun. mpirun
 * starts its daemons through srun, and their children inherit the step's variables, but they also have Open
 * MPI's own, and their world is as large as mpirun was asked for. */
static long srun_tasks(void)
{
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
    if (!tasks || !getenv("SLURM_STEP_ID") || getenv("OMPI_COMM_WORLD_SIZE"))
        return 0;
    return strtol(tasks, NULL, 10);
}

int comm_init(struct comm *world, struct error *err)
{
    *world = (struct comm){.mpi = MPI_COMM_NULL};
    long tasks = srun_tasks(); /* before MPI_Init_thread, which sets variables of its own */
    int provided = 0;
    if (comm_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "starting MPI", err) < 0)
        return -1;
    if (comm_adopt(MPI_COMM_WORLD, world, err) < 0)
        return -1;
    if (provided < MPI_THREAD_FUNNELED)
        return error_set(err, ERROR_CLUSTER, "this MPI does not allow threads (MPI_THREAD_FUNNELED)");
    if (world->size == 1 && tasks > 1)
        return error_set(err, ERROR_CLUSTER,
                         "srun started %ld tasks, but MPI sees a world of one rank: MPI and Slurm do not "
                         "understand each other; try srun --mpi=pmix, or mpirun inside the job",
                         tasks);
    return 0;
}

void comm_finish(struct comm *world)
{
    MPI_Finalize();
    world->mpi = MPI_COMM_NULL;
}

_Noreturn void comm_abort(const struct error *err)
{
    int started = 0, rank = 0;
    MPI_Initialized(&started);
    if (started)
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    fflush(stdout);
    line_print(stderr, "longhaul: rank %d: %s", rank, err->text);
    fflush(stderr);
    if (started)
        MPI_Abort(MPI_COMM_WORLD, err->code);
    _exit(err->code);
}

int comm_split(const struct comm *parent, int colour, struct comm *out, struct error *err)
{
    MPI_Comm mpi;
    out->mpi = MPI_COMM_NULL;
    if (comm_check(MPI_Comm_split(parent->mpi, colour, parent->rank, &mpi), "splitting the ranks in groups", err) <
        0)
        return -1;
    return comm_adopt(mpi, out, err);
}

int comm_node(const struct comm *parent, struct comm *out, struct error *err)
{
    MPI_Comm mpi;
    out->mpi = MPI_COMM_NULL;
    int code = MPI_Comm_split_type(parent->mpi, MPI_COMM_TYPE_SHARED, parent->rank, MPI_INFO_NULL, &mpi);
    if (comm_check(code, "finding the ranks of this node", err) < 0)
        return -1;
    return comm_adopt(mpi, out, err);
}

void comm_free(struct comm *comm)
{
    if (comm->mpi != MPI_COMM_NULL)
        MPI_Comm_free(&comm->mpi);
}

int comm_barrier(const struct comm *comm, struct error *err)
{
    return comm_check(MPI_Barrier(comm->mpi), "waiting for the other ranks", err);
}

int comm_broadcast(const struct comm *comm, void *data, size_t bytes, int root, struct error *err)
{
    for (size_t done = 0; done < bytes;) {
        size_t piece = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        int code = MPI_Bcast((char *)data + done, (int)piece, MPI_BYTE, root, comm->mpi);
        if (comm_check(code, "broadcasting", err) < 0)
            return -1;
        done += piece;
    }
    return 0;
}

/* Parts beyond MPI's int counts: each rank broadcasts its own. */
static int share_large_parts(const struct comm *comm, float *data, const int64_t *parts, struct error *err)
{
    for (int r = 0; r < comm->size; r++) {
        size_t bytes = (size_t)(parts[r + 1] - parts[r]) * sizeof *data;
        if (comm_broadcast(comm, data + parts[r], bytes, r, err) < 0)
            return -1;
    }
    return 0;
}

int comm_share_parts(const struct comm *comm, float *data, const int64_t *parts, struct error *err)
{
    if (comm->size == 1)
        return 0;
    if (parts[comm->size] > INT_MAX)
        return share_large_parts(comm, data, parts, err);
    int *counts = calloc((size_t)comm->size * 2, sizeof *counts), *starts = counts + comm->size;
    if (!counts)
        return error_set(err, ERROR_RESOURCE, "no memory for the parts of %d ranks", comm->size);
    for (int r = 0; r < comm->size; r++) {
        starts[r] = (int)parts[r];
        counts[r] = (int)(parts[r + 1] - parts[r]);
    }
    int code = MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, counts, starts, MPI_FLOAT, comm->mpi);
    free(counts);
    return comm_check(code, "sharing the parts of all ranks", err);
}

int comm_sum(const struct comm *comm, int64_t value, int64_t *out, struct error *err)
{
    return comm_check(MPI_Allreduce(&value, out, 1, MPI_INT64_T, MPI_SUM, comm->mpi), "adding up", err);
}

int comm_sum_counts(const struct comm *comm, int32_t *counts, int n, struct error *err)
{
    return comm_check(MPI_Allreduce(MPI_IN_PLACE, counts, n, MPI_INT32_T, MPI_SUM, comm->mpi), "adding up", err);
}

int comm_max(const struct comm *comm, int64_t value, int64_t *out, struct error *err)
{
    return comm_check(MPI_Allreduce(&value, out, 1, MPI_INT64_T, MPI_MAX, comm->mpi), "finding a maximum", err);
}

int comm_distinct(const struct comm *comm, const char *text, int64_t *out, struct error *err)
{
    char own[256] = "", other[256];
    int64_t first = 1; /* no rank before this one has its text */
    snprintf(own, sizeof own, "%s", text);
    for (int r = 0; r < comm->size; r++) {
        memcpy(other, own, sizeof own);
        if (comm_broadcast(comm, other, sizeof other, r, err) != 0)
            return -1;
        if (r < comm->rank && strcmp(own, other) == 0)
            first = 0;
    }
    return comm_sum(comm, first, out, err);
}

int comm_record_type(size_t bytes, const char *what, MPI_Datatype *out, struct error *err)
{
    char doing[64];
    snprintf(doing, sizeof doing, "describing %.40s", what);
    if (bytes > INT_MAX)
        return error_set(err, ERROR_RESOURCE, "%s: one of them has %zu bytes", doing, bytes);
    if (comm_check(MPI_Type_contiguous((int)bytes, MPI_BYTE, out), doing, err) < 0)
        return -1;
    const int status = comm_check(MPI_Type_commit(out), doing, err);
    if (status < 0)
        MPI_Type_free(out);
    return status;
}

int comm_agree(const struct comm *comm, int status, struct error *err)
{
    struct error mine = *err, failure;
    int64_t worst;
    if (comm_max(comm, status != 0 ? comm->size - comm->rank : 0, &worst, &failure) != 0)
        comm_abort(status != 0 ? &mine : &failure);
    if (worst == 0)
        return 0;
    if (comm_broadcast(comm, &mine, sizeof mine, comm->size - (int)worst, &failure) != 0)
        comm_abort(&failure);
    *err = mine;
    return -1;
}

/* Whether the folder that Open MPI's shared windows lie in has room for one. Asked before it is made: where rank 0
 * alone finds out there, the others wait for it for ever. */
static int check_room(const struct comm *node, size_t bytes, struct error *err)
{
    const char *set = getenv("OMPI_MCA_osc_sm_backing_directory"), *folder = set ? set : "/dev/shm";
    const double needed = 1.0625 * (double)bytes + 65536, mib = 1 << 20; /* with what Open MPI puts beside it */
    struct statvfs at;
    int status = 0;
    if (node->rank == 0 && statvfs(folder, &at) == 0) {
        const double there = (double)at.f_bavail * (double)at.f_frsize;
        if (there < needed)
            status = error_set(err, ERROR_RESOURCE,
                               "%s has %.1f MiB free, and what the ranks of a node share needs %.1f there: make it "
                               "larger (containers: --shm-size)",
                               folder, there / mib, needed / mib);
    }
    return comm_agree(node, status, err);
}

/* A window whose bytes all belong to rank 0; *base is where this rank sees them. */
static int window_create(const struct comm *node, size_t bytes, MPI_Win *window, void **base, struct error *err)
{
    MPI_Info info;
    MPI_Aint size = node->rank == 0 ? (MPI_Aint)bytes : 0;
    int unit;
    if (comm_check(MPI_Info_create(&info), "preparing shared memory", err) < 0)
        return -1;
    MPI_Info_set(info, "alloc_shared_noncontig", "true");
    int code = MPI_Win_allocate_shared(size, 1, info, node->mpi, base, window);
    MPI_Info_free(&info);
    if (comm_check(code, "allocating shared memory", err) < 0)
        return -1;
    MPI_Win_set_errhandler(*window, MPI_ERRORS_RETURN);
    if (comm_check(MPI_Win_shared_query(*window, 0, &size, &unit, base), "mapping shared memory", err) < 0)
        return -1;
    return comm_check(MPI_Win_lock_all(MPI_MODE_NOCHECK, *window), "mapping shared memory", err);
}

int shared_memory_create(const struct comm *node, size_t bytes, struct shared_memory *out, struct error *err)
{
    size_t padded;
    *out = (struct shared_memory){.window = MPI_WIN_NULL, .bytes = bytes};
    if (!size_add(bytes, SHARED_ALIGN, &padded) || padded > PTRDIFF_MAX)
        return error_set(err, ERROR_RESOURCE, "%zu bytes of shared memory are more than can be had", bytes);
    if (node->size == 1) { /* nobody to share with: huge pages can be had, and /dev/shm is not needed */
        out->data = device_cpu()->alloc(bytes, "the memory of this node's only rank", err);
        return out->data ? 0 : -1;
    }
    void *base;
    if (check_room(node, padded, err) != 0)
        return -1;
    if (comm_agree(node, window_create(node, padded, &out->window, &base, err), err) < 0) {
        out->window = MPI_WIN_NULL; /* some rank may have none, and freeing one is for all of them */
        return error_wrap(err, "%zu bytes for %d ranks of a node", bytes, node->size);
    }
    /* Mappings begin at pages, so this shift is the same on every rank. */
    out->data = (void *)(((uintptr_t)base + SHARED_ALIGN - 1) / SHARED_ALIGN * SHARED_ALIGN);
    if (node->rank == 0)
        memset(out->data, 0, bytes);
    return shared_memory_sync(node, out, err);
}

void shared_memory_free(struct shared_memory *memory)
{
    if (memory->window == MPI_WIN_NULL) {
        device_cpu()->free(memory->data);
    } else {
        MPI_Win_unlock_all(memory->window);
        MPI_Win_free(&memory->window);
    }
    memory->data = NULL;
}

int shared_memory_sync(const struct comm *node, struct shared_memory *memory, struct error *err)
{
    if (memory->window == MPI_WIN_NULL)
        return 0;
    if (comm_check(MPI_Win_sync(memory->window), "publishing shared memory", err) < 0 ||
        comm_barrier(node, err) < 0)
        return -1;
    return comm_check(MPI_Win_sync(memory->window), "taking up shared memory", err);
}
