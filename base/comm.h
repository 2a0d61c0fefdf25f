/* MPI behind checked wrappers: the world, groups of ranks, memory that a node's ranks share.
 *
 * comm_init once at the start, comm_finish once at the end (main only); comm_split as needed. Every MPI return
 * code is checked and becomes an error with MPI's own words. Large counts: every byte count may pass 2^31.
 * Only the thread that called comm_init may call these (MPI_THREAD_FUNNELED).
 */
#ifndef LONGHAUL_BASE_COMM_H
#define LONGHAUL_BASE_COMM_H

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct comm {
    MPI_Comm mpi;
    int rank, size;
};

/* 0 for MPI_SUCCESS; else -1 and *err says "<what>: <MPI's message>" with ERROR_CLUSTER. */
int comm_check(int code, const char *what, struct error *err);

/* Start MPI and fill *world. ERROR_CLUSTER when srun started several tasks and MPI sees a world of one rank: a
 * wrong PMI silently starts N such worlds. (SLURM_NTASKS says nothing about a world that mpirun made.) */
int comm_init(struct comm *world, struct error *err);
void comm_finish(struct comm *world);

/* One rank failed: print its message, and end every rank of the world with the error's code; also where MPI has not
 * started. */
_Noreturn void comm_abort(const struct error *err);

/* Ranks of the same colour form a new group, ordered by rank. comm_free is for these. */
int comm_split(const struct comm *parent, int colour, struct comm *out, struct error *err);
/* The ranks of `parent` on this node. */
int comm_node(const struct comm *parent, struct comm *out, struct error *err);
void comm_free(struct comm *comm);

int comm_barrier(const struct comm *comm, struct error *err);
int comm_broadcast(const struct comm *comm, void *data, size_t bytes, int root, struct error *err);

/* Rank r's part lies at parts[r] .. parts[r+1] (in floats) of `data` on every rank; afterwards all have all. */
int comm_share_parts(const struct comm *comm, float *data, const int64_t *parts, struct error *err);

/* *out = all ranks' values added up, on every rank. */
int comm_sum(const struct comm *comm, int64_t value, int64_t *out, struct error *err);

/* *out = the largest of all ranks' values, on every rank. */
int comm_max(const struct comm *comm, int64_t value, int64_t *out, struct error *err);

/* Each of counts [n] added up over all ranks, on every rank. */
int comm_sum_counts(const struct comm *comm, int32_t *counts, int n, struct error *err);

/* A datatype of so many bytes, `what` in messages, to be freed with MPI_Type_free: counts are of records then, and
 * an int holds them where it would not hold bytes. */
int comm_record_type(size_t bytes, const char *what, MPI_Datatype *out, struct error *err);

/* *out = how many different texts the ranks have, on every rank. What is longer than 255 bytes is cut. */
int comm_distinct(const struct comm *comm, const char *text, int64_t *out, struct error *err);

/* 0 where status is 0 on every rank; else -1, with the error of the lowest rank that failed on all of them. A
 * failure of MPI in this ends the world. */
int comm_agree(const struct comm *comm, int status, struct error *err);

/* Zeroed memory that all ranks of a node group map, aligned to 64 bytes; allocated once, by rank 0. Creating,
 * freeing and syncing are collective over the group. */
struct shared_memory {
    MPI_Win window; /* MPI_WIN_NULL where a rank is alone on its node and the memory is its own */
    void *data;
    size_t bytes;
};
int shared_memory_create(const struct comm *node, size_t bytes, struct shared_memory *out, struct error *err);
void shared_memory_free(struct shared_memory *memory);
/* What a rank wrote before is seen by all ranks of the node after. */
int shared_memory_sync(const struct comm *node, struct shared_memory *memory, struct error *err);

#endif
