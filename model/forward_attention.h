/* The attention of a forward pass: which layers go round the ring (full ones, and windows on a GPU) and which are
 * bounded and the host's, their memories, their ropes. Part of forward.c and forward_decode.c; not for others.
 *
 * A position method that follows the length of the text follows the positions that layers reach in it: under a
 * bounded policy these are counted inside what is seen and end, however long the text (policy_reach). Layers that
 * share a rope turn alike, as they were trained, so the one that reaches furthest decides: with a full layer among
 * bounded ones all of them follow the text.
 *
 * Create, then per chunk reset; per segment begin, and per layer put for each row of this rank's block, then
 * attend; in decode begin_one, and per layer attend_one.
 */
#ifndef LONGHAUL_MODEL_FORWARD_ATTENTION_H
#define LONGHAUL_MODEL_FORWARD_ATTENTION_H

#include "attention/bounded.h"
#include "attention/near.h"
#include "attention/ring.h"
#include "model/forward.h"

struct forward_attention {
    const struct forward_options *options; /* borrowed */
    struct rope *rope, *local_rope; /* of global and of local layers; the second NULL where they have the same */
    struct transport *transport;
    struct decoder *decoder;
    int *places;                              /* [layers]: the layer's index among those of its kind */
    struct policy_spec *bounded_specs;        /* [bounded layers] */
    const struct convolutions **convolutions; /* [bounded layers] */
    const float **key_offsets; /* [layers]: of full layers, then of windows and bounded ones; NULL: no key bias */
    int full_layers, window_layers, bounded_layers;
    struct ring *ring;      /* of full layers and, on a device that the host cannot reach, of windows; or NULL */
    struct memory *memory;  /* of the full layers; NULL where there are none */
    struct memory *windows; /* of the windows: what these reach, and some that is older; or NULL */
    float *one_lse;  /* [heads] on a device that the host cannot reach: of what a shard there gives one token */
    float *one_host; /* and the host's copy, where ranks merge theirs: [heads][dim], [heads] */
    struct bounded *bounded; /* NULL where there are no bounded layers */

    int64_t prefilled;            /* end of the last segment; what came since came one by one */
    int64_t length;               /* tokens so far, the one in hand counted */
    int64_t begun, windows_begun; /* index in these memories of the block's first token */
    const int64_t *positions;     /* [rows] of the block */
    int64_t rows;
};

/* Most tokens of one rank's block in any segment. */
int64_t forward_attention_block(const struct forward_options *options);

/* Bytes of the ring and its memories, and of bounded memory and decode. */
int forward_attention_bytes(const struct forward_options *options, struct forward_memory *out, struct error *err);
/* Collective over the group. */
int forward_attention_create(struct forward_attention *attention, const struct forward_options *options,
                             struct error *err);
void forward_attention_free(struct forward_attention *attention);
void forward_attention_reset(struct forward_attention *attention);

/* Whether the layer's memory is bounded and the host's, whatever computes the rest. */
bool forward_attention_is_bounded(const struct forward_options *options, int layer);

/* Bytes of keys and values that this rank holds now. */
size_t forward_attention_resident(const struct forward_attention *attention);

/* Tokens that no layer can reach any more, landmarks counted: see forward_forgotten. */
int64_t forward_attention_forgotten(const struct forward_attention *attention);

/* The segment [first, end), of which this rank has the rows with these positions [rows], rising; borrowed until its
 * last layer. */
int forward_attention_begin(struct forward_attention *attention, struct stretch segment, const int64_t *positions,
                            int64_t rows, struct error *err);

/* Keys and values of a row of the block, f32. Different rows from different threads at once. */
void forward_attention_put(struct forward_attention *attention, int layer, int64_t row, const float *k,
                           const float *v);

/* Where the memory of a layer that goes round keeps the block's rows from `row` on, for arithmetic that puts them
 * there itself. */
struct forward_attention_place {
    void *keys, *values;     /* [kv_heads][capacity][dim] */
    int64_t capacity, first; /* the row goes to index `first` */
};
struct forward_attention_place forward_attention_place(const struct forward_attention *attention, int layer,
                                                       int64_t row);

/* out [rows][heads * dim] in the kernel's dtype = the attention of q [rows][heads * dim] f32: both on the device,
 * and the host's for layers with bounded memory. */
int forward_attention_attend(struct forward_attention *attention, int layer, const float *q, void *out,
                             struct error *err);

/* One token, the same on every rank, at `position`; `owned`: this rank is the one that keeps it, in layers that go
 * round the ring. Of these its vectors are the device's, of others the host's. */
struct forward_one {
    int64_t position;
    bool owned;
    const float *qkv; /* [(heads + 2 kv_heads) * dim] f32 */
    float *out;       /* [heads * dim] f32 */
};
int forward_attention_begin_one(struct forward_attention *attention, int64_t position, bool owned,
                                struct error *err);
int forward_attention_attend_one(struct forward_attention *attention, int layer, const struct forward_one *one,
                                 struct error *err);

#endif
