/* What the files of the ring share: its state and its plan of memory. Private to attention/ring*.c. */
#ifndef LONGHAUL_ATTENTION_RING_PARTS_H
#define LONGHAUL_ATTENTION_RING_PARTS_H

#include <stdbool.h>

#include "attention/ring.h"

#define RING_LOG2_E 1.44269504088896340736f

/* All memory of a ring is one block; here is where its parts begin, each aligned to ATTN_ALIGN. */
struct ring_plan {
    size_t messages[2]; /* the shard being attended to, and the one that arrives */
    size_t q, o, m, l;  /* [kv_head][token][group](dim): queries in the kernel's dtype, state in f32 */
    size_t lengths;     /* [ranks] int64: tokens of each shard */
    size_t scratch;     /* [threads] x scratch_bytes */
    size_t scratch_bytes, total;
};

struct ring {
    struct ring_options options;
    struct ring_plan plan;
    char *block;
    int group;                 /* query heads of a kv head */
    float still[ATTN_MAX_DIM]; /* of the call's rope: 1 where it hardly moves an element of a head, else 0 */
    struct ring_stats stats;

    bool in_flight; /* a hop is under way; polled between work items by the calling thread */
    double hop_started;
    bool poll_failed;
    struct error poll_error;
};

/* Do the work items in the pool; between them the calling thread pushes on the hop in flight and calls the
 * caller's poll function. */
void ring_run(struct ring *ring, int64_t items, void (*work)(void *context, int64_t item, int thread),
              void *context);

/* This thread's working memory. */
void *ring_scratch(const struct ring *ring, int thread);

/* The call fits the ring it is made on, or ERROR_INTERNAL. */
int ring_check_memory(const struct ring *ring, const struct memory *memory, int layer, struct error *err);

#endif
