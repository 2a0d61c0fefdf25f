/* A pool of threads that share out numbered items of work.
 *
 * pool_create, then any number of pool_run from the thread that created it, then pool_free. The caller works
 * too, as thread 0: a pool of one thread starts none. Items are dealt one at a time in rising order, so unequal
 * items balance themselves. Between its items, and while it waits for the others, thread 0 calls the job's poll
 * function, at least once a job, where a transfer that is under way can be pushed on; no other thread ever calls
 * it, so MPI_THREAD_FUNNELED is enough.
 */
#ifndef LONGHAUL_BASE_POOL_H
#define LONGHAUL_BASE_POOL_H

#include <stdint.h>

#include "base/error.h"

struct pool;

struct pool_job {
    int64_t n_items;
    void (*work)(void *context, int64_t item, int thread); /* thread in 0 .. pool_threads()-1 */
    void *context;
    void (*poll)(void *context); /* may be NULL */
    void *poll_context;
};

struct pool *pool_create(int threads, struct error *err);
void pool_free(struct pool *pool);
int pool_threads(const struct pool *pool);

/* Returns when every item is done. */
void pool_run(struct pool *pool, const struct pool_job *job);

#endif
