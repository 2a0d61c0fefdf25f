/* What forward.c (prefill) and forward_decode.c share: the state of a forward pass. Not for others. */
#ifndef LONGHAUL_MODEL_FORWARD_STATE_H
#define LONGHAUL_MODEL_FORWARD_STATE_H

#include "attention/landmark.h"
#include "model/forward.h"
#include "model/forward_attention.h"
#include "model/ops.h"

/* A thread's workspace for one tile of rows. */
struct forward_scratch {
    void *in;         /* [LINEAR_TILE_ROWS][widest input of a matrix] in the model's dtype */
    float *y;         /* [LINEAR_TILE_ROWS][widest output] */
    void *linear;     /* linear_scratch_bytes() */
    struct error err; /* the first failure of this thread, ERROR_NONE while all is well */
};

struct forward {
    struct forward_options options;
    const struct model *model;
    struct forward_attention attention;

    /* Landmark tokens, one after every `landmark_block` tokens of the text; 0: none. A landmark is carried with the
     * token behind it, so that what comes before does not depend on where segments end. Lengths and positions count
     * landmarks. */
    int64_t landmark_block;
    int32_t landmark;

    int64_t length;    /* tokens of the chunk so far */
    int64_t prefilled; /* of those, the ones that came by segments: the others were dealt round-robin */

    /* The segment just carried and this rank's block of it. */
    int64_t first, end;
    struct zigzag block;
    int64_t rows;
    int64_t tile_rows;               /* at most LINEAR_TILE_ROWS: what a thread takes at a time */
    int64_t *row_positions;          /* [max_block] */
    float *x;                        /* [max_block][width]: the residual stream */
    float *q;                        /* [max_block][heads * dim] */
    void *attended;                  /* [max_block][heads * dim] in the model's dtype */
    struct forward_scratch *scratch; /* [threads] */

    /* One token in decode: vectors that every rank holds whole. */
    struct forward_token {
        float *x, *normed;    /* [width] */
        float *qkv;           /* [(heads + 2 kv_heads) * dim] */
        float *attended;      /* [heads * dim] */
        float *hidden, *gate; /* [ffn] */
        float *out;           /* [width] */
        int64_t *parts;       /* [ranks + 1]: the rows that each rank computes */
    } token;
};

/* Elements of q, and of q, k and v together. */
static inline int64_t forward_q_width(const struct model_shape *shape)
{
    return (int64_t)shape->heads * shape->dim;
}

static inline int64_t forward_qkv_width(const struct model_shape *shape)
{
    return (int64_t)(shape->heads + 2 * shape->kv_heads) * shape->dim;
}

/* The place of token `index` of the text, and the text's tokens before a place. */
static inline int64_t forward_place(const struct forward *forward, int64_t index)
{
    return forward->landmark_block ? landmark_place(index, forward->landmark_block) : index;
}

static inline int64_t forward_tokens(const struct forward *forward, int64_t place)
{
    return forward->landmark_block ? landmark_tokens(place, forward->landmark_block) : place;
}

/* x [rows][width] normed in place, where the layer has that norm: weight is not NULL. */
void forward_norm(const struct model *model, const float *weight, float *x, int64_t rows);

/* The norms of each head's query and key, where the layer has them, in a row of q, k and v. */
void forward_head_norms(const struct model *model, const struct layer *layer, float *qkv);

#endif
