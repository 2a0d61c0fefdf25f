#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* How often an idle thread looks for work before it sleeps: a few microseconds, so that the short pauses
 * between two jobs of one layer cost no wake-up, and a machine with more threads than cores loses little. */
enum { SPINS_BEFORE_SLEEP = 2000 };

struct worker {
    struct pool *pool;
    pthread_t thread;
    int index;
};

struct pool {
    int threads;
    struct worker *workers; /* [threads - 1] */
    pthread_mutex_t mutex;
    pthread_cond_t work_there, all_done;
    struct pool_job job;
    atomic_uint_fast64_t generation; /* counts jobs; a change wakes the workers */
    atomic_int_fast64_t next_item;
    atomic_int busy; /* workers that have not finished the job in hand */
    bool stopping;
};

static void work_off(struct pool *pool, int thread)
{
    const struct pool_job *job = &pool->job;
    for (;;) {
        int64_t item = atomic_fetch_add(&pool->next_item, 1);
        if (item >= job->n_items)
            return;
        job->work(job->context, item, thread);
        if (thread == 0 && job->poll)
            job->poll(job->poll_context);
    }
}

static void await_generation(struct pool *pool, uint_fast64_t seen)
{
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(&pool->generation, memory_order_acquire) != seen)
            return;
        __builtin_ia32_pause();
    }
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load(&pool->generation) == seen)
        pthread_cond_wait(&pool->work_there, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct pool *pool = worker->pool;
    for (uint_fast64_t seen = 0;; seen++) {
        await_generation(pool, seen);
        if (pool->stopping)
            return NULL;
        work_off(pool, worker->index);
        if (atomic_fetch_sub(&pool->busy, 1) == 1) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->all_done);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
}

/* Publish what the fields say to the workers. */
static void next_generation(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->generation, 1);
    pthread_cond_broadcast(&pool->work_there);
    pthread_mutex_unlock(&pool->mutex);
}

struct pool *pool_create(int threads, struct error *err)
{
    struct pool *pool = calloc(1, sizeof *pool);
    struct worker *workers = calloc((size_t)threads, sizeof *workers);
    if (!pool || !workers) {
        free(workers);
        free(pool);
        error_set(err, ERROR_RESOURCE, "no memory for a pool of %d threads", threads);
        return NULL;
    }
    pool->workers = workers;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work_there, NULL);
    pthread_cond_init(&pool->all_done, NULL);
    for (pool->threads = 1; pool->threads < threads; pool->threads++) {
        struct worker *worker = &workers[pool->threads - 1];
        worker->pool = pool;
        worker->index = pool->threads;
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
            error_set(err, ERROR_RESOURCE, "the system refuses thread %d of %d", pool->threads + 1, threads);
            pool_free(pool);
            return NULL;
        }
    }
    return pool;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pool->stopping = true;
    next_generation(pool);
    for (int i = 0; i < pool->threads - 1; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->all_done);
    pthread_cond_destroy(&pool->work_there);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool);
}

int pool_threads(const struct pool *pool)
{
    return pool->threads;
}

/* With something to poll thread 0 goes on polling: what the others still have in hand is one item each at most. */
static void await_workers(struct pool *pool)
{
    const struct pool_job *job = &pool->job;
    if (job->poll) {
        do
            job->poll(job->poll_context);
        while (atomic_load_explicit(&pool->busy, memory_order_acquire) != 0);
    }
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(&pool->busy, memory_order_acquire) == 0)
            return;
        __builtin_ia32_pause();
    }
    pthread_mutex_lock(&pool->mutex);
    while (atomic_load(&pool->busy) != 0)
        pthread_cond_wait(&pool->all_done, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

void pool_run(struct pool *pool, const struct pool_job *job)
{
    pool->job = *job;
    atomic_store(&pool->next_item, 0);
    atomic_store(&pool->busy, pool->threads - 1);
    if (pool->threads > 1 && job->n_items > 1)
        next_generation(pool);
    else
        atomic_store(&pool->busy, 0);
    work_off(pool, 0);
    await_workers(pool);
}
