/* What the files of bounded attention share: its state and one pass over a layer. Private to attention/bounded*.c.
 *
 * bounded.c         making it, segments, and what happens at their ends
 * bounded_attend.c  the softmax of a block's queries over near, sinks and slots
 * bounded_nearest.c of many slots each query's nearest
 * bounded_groups.c  groups of queries that choose slots together, and runs of keys that are packed for them
 * bounded_blocks.c  slots that are chosen out of raw blocks
 * bounded_far.c     slots that are chosen out of a far memory
 * bounded_observe.c what attention keys get, for the rules that keep or find by it
 * bounded_landmark.c blocks found by their landmark tokens
 * bounded_one.c     decode: one query
 */
#ifndef LONGHAUL_ATTENTION_BOUNDED_PARTS_H
#define LONGHAUL_ATTENTION_BOUNDED_PARTS_H

#include <stdatomic.h>

#include "attention/blocks.h"
#include "attention/bounded.h"
#include "attention/near.h"
#include "attention/nearest.h"
#include "attention/retrieve.h"
#include "attention/slots.h"

struct bounded_layer {
    struct policy_spec spec;
    const float *key_offset; /* [kv_heads][dim] or NULL */
    const struct convolutions *convolutions;
    struct near near;
    int64_t sinks;                 /* tokens that the sinks' rows hold so far */
    char *sink_keys, *sink_values; /* [kv_heads][spec.sinks][dim], on every rank */
    struct slots slots;
    /* Attention that keys got on this rank, [kv_heads][classes][slots, then near tokens] in ATTN_UNIT; NULL: not
     * observed. */
    _Atomic int64_t *received;
    int classes; /* 1, or the query heads of a kv head */

    /* Where slots are chosen (PAST_FAR): the memory they come from, and in decode this rank's share of the
     * last choice, [kv_heads][one_held][dim]: block i of a choice is attended to by rank i % ranks. */
    struct far far;
    int64_t one_position; /* of the query that chose; -1: none yet */
    int64_t one_held, one_chosen;
    char *one_keys, *one_values;

    struct blocks blocks; /* where they are chosen out of raw blocks (PAST_BLOCKS) */
};

/* Queries at first .. end - 1 that choose together: rows of their rank's block from `row` on. */
struct bounded_group {
    int rank;
    int64_t first, end, row;
};

/* Of the segment in hand, for all layers that choose; and the runs of the layer in hand. */
struct bounded_groups {
    struct bounded_group *items; /* [n], in order of ranks; NULL: no layer chooses */
    int64_t n, own_first, own;   /* this rank's: own_first .. own_first + own - 1 */
    char *packed;                /* [own][kv_heads] runs of run_tiles tiles: sinks, then what was chosen */
    int64_t run_tiles;
    char **raw; /* [threads] x raw_bytes: raw keys of a run, then its values */
    size_t raw_bytes;
};

/* What the layers with blocks share: the choices of the layer in hand. */
struct bounded_blocks {
    float *means;           /* [groups][heads][dim]: mean queries */
    double *scores;         /* [groups][blocks] */
    int64_t *chosen, count; /* [groups][top], `count` of them there */
    int *counts;            /* [4][ranks], see bounded_blocks.c */
    char *fetched, *stage;  /* records */
    char *packed_rest;      /* [kv_heads] runs of rest_tiles tiles */
    int64_t rest_tiles;
    char *one; /* decode: [key, value][kv_heads][top * BLOCK_TOKENS][dim], one_count blocks there */
    int64_t one_count;
};

/* What the layers that are observed share. */
struct bounded_observe {
    int64_t *runs;   /* [threads] x run: what the keys of a run get from a tile */
    int64_t *totals; /* what candidates got on all ranks */
    size_t run;
    double *scores; /* [kv_heads][candidates] */
};

/* What the layers that retrieve share: the choices of the layer in hand. */
struct bounded_far {
    struct retrieve *retrieve;     /* NULL: no layer retrieves */
    struct retrieve_group *groups; /* as b->groups has them */
    int64_t *chosen, *counts;      /* see retrieve_choose */
    struct far_want *wants;
    char *stage, *records; /* [own][kv_heads][top] records */
};

/* Where queries attend to the nearest slots only. */
struct bounded_nearest {
    int64_t top;  /* most of all layers; 0: none does */
    char *memory; /* [threads] x thread_bytes, then what decode needs */
    size_t thread_bytes;
    char *one;
    struct decoder_result result; /* of the last token, inside `one` */
};

/* A thread's memory for a query that chooses by landmarks. */
struct bounded_landmarks {
    int64_t *chosen;
    float *scores;
};

/* A thread's memory for one tile of query rows. */
struct bounded_scratch {
    float *o, *m, *l; /* [ATTN_QUERY_ROWS](dim): the state */
    void *q;          /* [ATTN_QUERY_ROWS][dim] in the kernel's dtype */
    void *kernel;     /* kernel->scratch_bytes(dim) */
};

struct bounded {
    struct bounded_options options;
    int heads_per_kv;   /* query heads of a kv head */
    int64_t first, end; /* the segment in hand, or the last one */
    struct bounded_layer *layers;
    struct near_share *shares; /* [ranks] */

    struct bounded_groups groups;
    struct bounded_far far;
    struct bounded_observe observe;
    struct bounded_nearest nearest;
    struct bounded_blocks blocks;
    struct bounded_landmarks *landmarks; /* [threads]; NULL: no layer has any */

    /* Of the layer in hand; sized for the largest. */
    char *kept_keys, *kept_values;   /* [kv_heads][most_kept][dim]: sinks, then slots */
    int64_t most_kept, kept;         /* rows of a head; there now */
    char *packed_kept, *packed_near; /* runs of tiles, one a kv head */
    void *stage;                     /* for exchanges between ranks */
    struct slot_recipe *recipes;     /* [kv_heads][most slots] */
    int64_t *chosen_positions;       /* [most keys of blocks], in decode under `retrieval` */
    struct bounded_scratch *scratch; /* [threads] */
};

/* Bytes of a row of keys or values of a kv head. */
static inline size_t bounded_row_bytes(const struct bounded_options *options)
{
    return (size_t)options->dim * dtype_size(options->kernel->dtype);
}

/* Tokens that a layer's near part can hold. */
static inline int64_t bounded_near_capacity(const struct bounded_options *options, const struct policy_spec *spec)
{
    return policy_near_reach(spec) + options->max_segment + options->max_generated;
}

/* The query's position among sinks and `slots` slots, and how many of these it sees. */
struct kept_view {
    int64_t position, visible;
};
struct kept_view bounded_kept_view(const struct bounded_layer *layer, int64_t slots, int64_t position,
                                   int64_t near_first);

/* The sinks take what the near part has of the first tokens, up to position `end`. */
void bounded_take_sinks(struct bounded *bounded, struct bounded_layer *layer, int64_t end);

/* The sinks and slots of a layer, together, to bounded->kept_keys and kept_values. Collective. */
int bounded_gather_kept(struct bounded *bounded, struct bounded_layer *layer, struct error *err);

/* ---- groups of queries that choose together (bounded_groups.c) ---- */

/* Most groups of a segment, of all ranks together and of one. */
int64_t bounded_groups_most(const struct bounded_options *options);
int64_t bounded_groups_most_own(const struct bounded_options *options);
size_t bounded_groups_bytes(const struct bounded_options *options);
int bounded_groups_create(struct bounded *bounded, struct error *err);
void bounded_groups_free(struct bounded *bounded);

/* The groups of the segment in hand. */
void bounded_groups_find(struct bounded *bounded);

/* The own group, from 0, of the query at `position`. */
int64_t bounded_groups_own(const struct bounded *bounded, int64_t position);

/* The packed run of an own group. */
char *bounded_groups_run(const struct bounded *bounded, int64_t own, int kv_head);

/* Rows of one kv head on their way into a run: keys and values [n][dim], row i at position i * step. */
struct bounded_raw {
    char *keys, *values;
    int64_t n, step;
};
struct bounded_packing {
    struct bounded *bounded;
    const struct bounded_layer *layer;
    const struct rope *rope;
};

/* The first n sinks to the beginning of `to`; returns the bytes of their keys. */
size_t bounded_copy_sinks(const struct bounded *bounded, const struct bounded_layer *layer, int kv_head, int64_t n,
                          const struct bounded_raw *to);

/* The rows become tiles from `tile` on. */
void bounded_pack(const struct bounded_packing *packing, const struct bounded_raw *raw, int kv_head, char *tile);

/* ---- layers that retrieve from a far memory (bounded_far.c) ---- */

int bounded_far_bytes(const struct bounded_options *options, size_t *out, struct error *err);
int bounded_far_create(struct bounded *bounded, struct error *err);
void bounded_far_free(struct bounded *bounded);

/* Of a segment, whose near part is complete: what leaves goes into the far memory, and each group's choice is
 * packed. Collective. */
int bounded_far_choose(struct bounded *bounded, struct bounded_layer *layer, const struct bounded_queries *queries,
                       struct error *err);

/* The run of the group of the token at `first`; *rows: beside the sinks. */
const void *bounded_far_run(const struct bounded *bounded, int kv_head, int64_t first, int64_t *rows);

/* Of one token: the choice is made anew every few tokens, and this rank's share of it lies in layer->one_keys.
 * Collective. */
int bounded_far_choose_one(struct bounded *bounded, struct bounded_layer *layer, const struct decoder_query *query,
                           int64_t position, struct error *err);

/* ---- layers that choose raw blocks (bounded_blocks.c) ---- */

size_t bounded_blocks_bytes(const struct bounded_options *options);
int bounded_blocks_create(struct bounded *bounded, struct error *err);
void bounded_blocks_free(struct bounded *bounded);

/* Of a segment: each group's choice is packed, and so are the tokens before the window. Collective. */
int bounded_blocks_choose(struct bounded *bounded, struct bounded_layer *layer,
                          const struct bounded_queries *queries, struct error *err);

/* The run of the group of the token at `first`; *slots: its rows beside the sinks. Then that of the tokens before
 * the window. */
const void *bounded_blocks_run(const struct bounded *bounded, int kv_head, int64_t first, int64_t *slots);
const void *bounded_blocks_rest(const struct bounded *bounded, int kv_head);

/* Of one token: this rank's share of its choice lies in blocks.one. Collective. */
int bounded_blocks_choose_one(struct bounded *bounded, struct bounded_layer *layer,
                              const struct decoder_query *query, struct error *err);

/* At the end of a segment: near tokens before position `leave` become blocks. Collective. */
int bounded_blocks_keep(struct bounded *bounded, struct bounded_layer *layer, int64_t leave, struct error *err);

/* ---- layers whose queries attend to their nearest slots only, spec.nearest (bounded_nearest.c) ---- */

/* A tile of query rows of one kv head, in the thread's scratch memory: its q, rotated. */
struct bounded_tile {
    int kv_head, rows, thread;
};

size_t bounded_nearest_bytes(const struct bounded_options *options);
int bounded_nearest_create(struct bounded *bounded, struct error *err);
void bounded_nearest_free(struct bounded *bounded);

/* The tile's state becomes that over the kept rows. */
void bounded_nearest_attend(const struct bounded *bounded, const struct bounded_layer *layer,
                            const struct rope *rope, const struct bounded_tile *tile);

/* One token's result over this rank's share of the slots, its query at `position`, until the next call; or NULL
 * with an error. Collective. */
const struct decoder_result *bounded_nearest_one(struct bounded *bounded, const struct bounded_layer *layer,
                                                 const struct decoder_query *query, int64_t position,
                                                 struct error *err);

/* ---- layers with landmarks (bounded_landmark.c) ---- */

size_t bounded_landmark_bytes(const struct bounded_options *options);
int bounded_landmark_create(struct bounded *bounded, struct error *err);
void bounded_landmark_free(struct bounded *bounded);

/* This rank's block over the near part. */
void bounded_landmark_attend(struct bounded *bounded, const struct bounded_layer *layer,
                             const struct bounded_queries *queries);

/* One token over the near part; every rank works out the whole of its result. */
void bounded_landmark_attend_one(struct bounded *bounded, const struct bounded_layer *layer,
                                 const struct decoder_query *query, int64_t position);

/* ---- layers whose keys are kept or found by the attention they get (bounded_observe.c) ---- */

/* A run of packed keys that a tile's rows have attended to: what they get goes to the places from `place` on,
 * `counts` times. */
struct bounded_run {
    const void *packed;
    const float *lse; /* [rows], of all that they saw */
    int thread, kv_head;
    int64_t place, counts;
};

size_t bounded_observe_bytes(const struct bounded_options *options);
int bounded_observe_create(struct bounded *bounded, struct error *err);
void bounded_observe_free(struct bounded *bounded);
void bounded_observe_reset(struct bounded_layer *layer);

/* Before a segment's attention, and then of each tile of it. */
void bounded_observe_begin(struct bounded_layer *layer);
void bounded_observe_run(struct bounded *bounded, const struct bounded_layer *layer, const struct attn_tile *rows,
                         const struct bounded_run *run);

/* At its end, with the near part and kept rows still in place: what slots and the near tokens that leave have got
 * on all ranks, [kv_heads][classes][slots, then leaving] until the next call. Collective. */
const int64_t *bounded_observed(struct bounded *bounded, const struct bounded_layer *layer, struct stretch leaving,
                                struct error *err);

/* The same as a rule's scores, near tokens from position `first` on. Collective. */
int bounded_observe_score(struct bounded *bounded, const struct bounded_layer *layer, int64_t first,
                          struct keep *keep, struct error *err);

/* Once the rule has chosen: the sums move with what was kept. */
void bounded_observe_kept(struct bounded_layer *layer, int64_t first, const struct keep *keep);

/* Drop the sums of what was near before position `leave`. */
void bounded_observe_drop(struct bounded_layer *layer, int64_t leave);

/* ---- bounded_attend.c ---- */

/* The attention of this rank's block; near and kept rows are in place. */
void bounded_attend_block(struct bounded *bounded, struct bounded_layer *layer,
                          const struct bounded_queries *queries);

#endif
