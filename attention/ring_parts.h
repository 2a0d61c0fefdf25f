/* What the files of the ring share. Private to attention/ring*.c.
 *
 * ring.c          making a ring, hops, and one call of ring_attend
 * ring_message.c  packed keys and values that travel, or stay
 * ring_block.c    rotated queries and their sums, that stay, or travel
 * ring_pass_kv.c  once round with the keys
 * ring_pass_q.c   once round with the queries
 * ring_cost.c     which of the two
 */
#ifndef LONGHAUL_ATTENTION_RING_PARTS_H
#define LONGHAUL_ATTENTION_RING_PARTS_H

#include <stdbool.h>

#include "attention/ring.h"
#include "attention/ring_block.h"
#include "attention/ring_cost.h"
#include "attention/ring_message.h"

/* All memory of a ring is one block; here is where its parts begin, each aligned to ATTN_ALIGN. In a ring of one
 * there is no second of anything. */
struct ring_plan {
    size_t messages[2]; /* the keys being attended to, and those that arrive */
    size_t blocks[2]; /* this rank's queries, and those that visit: the second shares its place with messages[1] */
    size_t shares;    /* [ranks] struct ring_share */
    size_t scratch;   /* [threads] x scratch_bytes */
    size_t scratch_bytes, total;
};

struct ring {
    struct ring_options options;
    struct ring_plan plan;
    char *memory;
    struct ring_rates rates;
    struct ring_stats stats;

    bool in_flight; /* a hop is under way; polled between work items by the calling thread */
    size_t hop_bytes;
    double hop_started;
    bool poll_failed;
    struct error poll_error;
};

/* Once round: this rank's packed piece of its shard against the queries of all ranks. */
struct ring_round {
    struct ring *ring;
    struct ring_message piece;       /* this rank's, in messages[0] */
    struct ring_block block;         /* this rank's queries */
    const struct ring_share *shares; /* [ranks] */
    int64_t first;                   /* tokens of each shard before this piece */
};

/* Carry the sums of round->block over the pieces of all ranks. On return the block may lie in the other place. */
int ring_pass_kv(struct ring_round *round, struct error *err);
int ring_pass_q(struct ring_round *round, struct error *err);

/* The rank so many hops before this one. */
int ring_rank_before(const struct ring *ring, int hops);

/* Do the work items in the pool; between them the calling thread pushes on the hop in flight and calls the
 * caller's poll function. ring_poll() does so within an item of thread 0. */
void ring_run(struct ring *ring, int64_t items, void (*work)(void *context, int64_t item, int thread),
              void *context);
void ring_poll(struct ring *ring);

/* Flops of a query and a key that it sees, in all heads: two products. */
static inline double ring_pair_flops(const struct ring_options *options)
{
    return 4.0 * options->heads * options->dim;
}

/* This thread's working memory. */
void *ring_scratch(const struct ring *ring, int thread);

/* One hop: begin it, and wait for it. */
int ring_hop_start(struct ring *ring, const struct transport_hop *hop, struct error *err);
int ring_hop_finish(struct ring *ring, struct error *err);

#endif
