/* Retrieval: which blocks of a far memory each group of queries attends to, in each kv head.
 *
 * Of a group's queries one in RETRIEVE_SAMPLE scores every far block that the group may see
 * (attention/far_score.h), and the `top` best are chosen. Where there are more than RETRIEVE_CANDIDATES blocks, one
 * query in RETRIEVE_COARSE chooses that many of them first, by the representatives of their keys: an eighth of the
 * products (docs/measurements.md says what that costs). Queries are gathered on all ranks, each rank scores its
 * own blocks, and the maxima, sums and best of all ranks are merged, so that every rank knows every choice and
 * choices do not depend on how many ranks there are.
 *
 * retrieve_create; per layer and segment, or per few tokens of decode, retrieve_choose on all ranks; retrieve_free.
 */
#ifndef LONGHAUL_ATTENTION_RETRIEVE_H
#define LONGHAUL_ATTENTION_RETRIEVE_H

#include "attention/far.h"
#include "base/pool.h"

enum { RETRIEVE_SAMPLE = 4, RETRIEVE_COARSE = 8, RETRIEVE_CANDIDATES = 1024 };

/* Queries that choose together. */
struct retrieve_group {
    int rank;           /* that has them; RETRIEVE_EVERY: all have */
    int64_t row, count; /* its rows in that rank's block: at most max_count */
    int64_t first, end; /* it sees the blocks from the one to before the other */
};
enum { RETRIEVE_EVERY = -1 };

struct retrieve;

struct retrieve_options {
    const struct comm *group; /* borrowed, as all below */
    struct pool *pool;
    const struct device *device;
    int heads, kv_heads, dim;
    int64_t max_groups; /* of all ranks, in one call */
    int64_t max_count;  /* queries of a group */
    int64_t max_blocks; /* that a group sees, of all ranks together */
    void (*poll)(void *context);
    void *poll_context;
};

/* Bytes that retrieve_create will allocate; of the group only its size is looked at. */
int retrieve_bytes(const struct retrieve_options *options, size_t *out, struct error *err);
struct retrieve *retrieve_create(const struct retrieve_options *options, struct error *err);
void retrieve_free(struct retrieve *retrieve);

/* groups [n_groups] of all ranks, each rank's together and in order of ranks. q: row t of this rank's block at
 * q + t * stride, [heads][dim], raw; scale is the softmax's. */
struct retrieve_call {
    const struct far *far;
    const struct retrieve_group *groups;
    int64_t n_groups;
    const float *q;
    int64_t stride;
    float scale;
    int64_t top; /* at most RETRIEVE_CANDIDATES */
};

/* Products in eight bits of each query of a sequence with the keys of n far tokens, in the mean: the glance and the
 * choice. For predictions. */
double retrieve_products(double tokens);

/* chosen: the blocks of group g and kv head h at (g * kv_heads + h) * top, rising; counts [n_groups]: how many, top
 * or all there are. */
int retrieve_choose(struct retrieve *retrieve, const struct retrieve_call *call, int64_t *chosen, int64_t *counts,
                    struct error *err);

#endif
