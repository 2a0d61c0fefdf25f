/* Landmark attention: blocks of tokens, each ended by a landmark token by whose key the block is found (Mohtashami
 * and Jaggi 2023, arXiv:2305.16300), for models trained with such tokens. One query over one kv head's rows, in
 * plain C.
 *
 * The token at t is a landmark where t % (block + 1) == block. Within a query's own block weights are those of one
 * softmax over this block's tokens and the landmarks of the blocks it sees; a token in a block before gets its
 * share of a softmax over its block alone, times its landmark's weight. Landmarks themselves pass nothing on, and a
 * landmark's own query does not see itself; so weights sum to 1.
 *
 * Of all whole blocks before its own a query sees the `top` whose landmark keys score most. Positions are those of
 * the authors' inference (epfml/landmark-attention, llama_legacy/llama_mem.py): there is room for `top` + 1 blocks
 * before the query's own. For the choice the last `top` blocks stand where they are, and all before them in the
 * first place. The chosen ones then stand in their order, those among the last `top` up to the query's own block,
 * the older ones from the first place on. Where there are no more than `top` blocks this is exactly what the model
 * was trained with.
 */
#ifndef LONGHAUL_ATTENTION_LANDMARK_H
#define LONGHAUL_ATTENTION_LANDMARK_H

#include <stdbool.h>

#include "attention/position.h"
#include "base/num.h"

/* Raw keys and values [n][dim] of one kv head; row t is the token at t, the query's own token the last. */
struct landmark_rows {
    enum dtype dtype;
    const void *keys, *values;
    const float *key_offset; /* [dim], added to every key, or NULL */
    int64_t n;
    int dim;       /* at most ATTN_MAX_DIM */
    int64_t block; /* tokens of a block beside its landmark, at least 1 */
};

struct landmark_query {
    const float *q; /* [dim], raw */
    float scale;    /* of the softmax */
    const struct rope *rope;
    int64_t top; /* at least 1 */
};

static inline bool landmark_is(int64_t token, int64_t block)
{
    return token % (block + 1) == block;
}

/* Where the text's token `index` stands when a landmark follows every `block` of them, and how many of the text's
 * tokens there are before a place. */
static inline int64_t landmark_place(int64_t index, int64_t block)
{
    return index + index / block;
}

static inline int64_t landmark_tokens(int64_t place, int64_t block)
{
    return place - place / (block + 1);
}

/* chosen: the blocks that the query sees, rising, at most query->top of them; returns how many. Of equal scores the
 * earlier is chosen. scratch: as many floats as there are blocks. */
int64_t landmark_choose(const struct landmark_rows *rows, const struct landmark_query *query, int64_t *chosen,
                        float *scratch);

/* out [dim] f32 = the query's answer over its own block and chosen [n]; 0 where it sees nothing. scratch: 2 *
 * (block + 1) + n floats. */
void landmark_attend(const struct landmark_rows *rows, const struct landmark_query *query, const int64_t *chosen,
                     int64_t n, float *scratch, float *out);

#endif
