/* What the files of the ring share. Private to attention/ring*.c.
 *
 * ring.c          making a ring, hops, and one call of ring_attend
 * ring_message.c  where packed keys and values lie in a buffer: they travel, or stay
 * ring_block.c    where rotated queries and their sums lie: they stay, or travel
 * ring_cpu.c      the arithmetic on both, by threads
 * ring_cuda.c     the arithmetic on both, by a GPU
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

/* All of a ring's buffers are one block of the device's memory; here is where its parts begin, each aligned to
 * ATTN_ALIGN. In a ring of one there is no second of anything. */
struct ring_plan {
    size_t messages[2]; /* the keys being attended to, and those that arrive */
    size_t blocks[2]; /* this rank's queries, and those that visit: the second shares its place with messages[1] */
    size_t scratch;   /* the arithmetic's own */
    size_t total;
};

/* A ring's arithmetic, where its buffers lie. What a function has computed is there when it returns; while it works
 * it calls ring_poll() often. */
struct ring_arithmetic {
    /* Bytes of scratch for a ring with these options; false where they cannot be counted. */
    bool (*scratch_bytes)(const struct ring_options *options, size_t *out);
    /* What it needs beside its scratch, in ring->own; may be NULL. */
    int (*create)(struct ring *ring, struct error *err);
    void (*free)(struct ring *ring);

    /* Rotate and pack the keys of the source into the message, with their positions. */
    int (*pack)(struct ring *ring, const struct ring_message *message, const struct ring_message_source *source,
                struct error *err);
    /* Rotate the queries, whose positions [tokens] these are, fold in the scale, and begin their sums. */
    int (*begin)(struct ring *ring, const struct ring_block *block, const struct ring_queries *queries,
                 const int64_t *positions, struct error *err);
    /* Carry the sums over the keys of a message that are not behind the queries, and not before ring->window.
     * *pairs: queries times keys that they have seen, in one head. */
    int (*attend)(struct ring *ring, const struct ring_block *block, const struct ring_message *message,
                  double *pairs, struct error *err);
    /* Close the sums and hand the rows out. */
    int (*finish)(struct ring *ring, const struct ring_block *block, void *out, struct error *err);

    /* What ring_attend_one says; NULL where a device has no need of it. */
    int (*attend_one)(struct ring *ring, const struct ring_message_source *source, const struct ring_one *one,
                      struct error *err);
};

extern const struct ring_arithmetic ring_on_cpu;
/* NULL in a program that was built without CUDA. */
const struct ring_arithmetic *ring_on_cuda(void);

struct ring {
    struct ring_options options;
    const struct ring_arithmetic *arithmetic;
    void *own; /* the arithmetic's */
    struct ring_plan plan;
    char *memory;              /* on the device */
    struct ring_share *shares; /* [ranks] */
    int64_t window;            /* of the call in hand, alike on all ranks */
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

/* arithmetic->attend with its time taken. */
int ring_attend_message(struct ring *ring, const struct ring_block *block, const struct ring_message *message,
                        struct error *err);

/* Push on the hop in flight, if there is one, and call the caller's poll function. From the calling thread. */
void ring_poll(struct ring *ring);

/* Flops of a query and a key that it sees, in all heads: two products. */
static inline double ring_pair_flops(const struct ring_options *options)
{
    return 4.0 * options->heads * options->dim;
}

/* One hop: begin it, and wait for it. */
int ring_hop_start(struct ring *ring, const struct transport_hop *hop, struct error *err);
int ring_hop_finish(struct ring *ring, struct error *err);

#endif
