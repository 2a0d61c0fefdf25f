/* Scoring far blocks: which blocks do a group's queries look for?
 *
 * A query's score of a block is the largest q . k over the block's raw keys, times the softmax's scale, and what a
 * block gets is the mean over queries and heads of the softmax over blocks of these scores. Measured against mean
 * keys, bounds and sums of exponentials this is what finds a passage again (docs/measurements.md).
 *
 * Products are of eight bits: queries in lanes of FAR_LANES rows, so that the largest over keys needs no shuffling;
 * keys all with one scale. Queries use seven of them, the sign counted: then AVX2, which adds products in sixteen
 * bits two by two, gives what the others do, and beside keys that were kept in four it makes no difference. One
 * variant per instruction set, chosen by far_scorer_choose().
 */
#ifndef LONGHAUL_ATTENTION_FAR_SCORE_H
#define LONGHAUL_ATTENTION_FAR_SCORE_H

#include <stdbool.h>

#include "attention/far_record.h"

enum { FAR_LANES = 16, FAR_TILES = 6, FAR_QUERY_LEVELS = 63 };

/* A row with nothing larger is one of zeros: what is less has no finite reciprocal. */
static const float FAR_LEAST = 1e-30F;

/* A lane tile of queries: FAR_LANES rows in eight bits. Element e of row l lies at [e / 4][l][e % 4]; behind them
 * lie [FAR_LANES] int32, -128 times the sum of each row: where its products with keys, which are 128 too large,
 * begin.
 */
static inline size_t far_lanes_bytes(int dim)
{
    return (size_t)FAR_LANES * ((size_t)dim + sizeof(int32_t));
}

/* Of the rows of some tiles, each [tiles][FAR_LANES]. */
struct far_rows {
    const float *scales;  /* times the keys' scale and a product: the score */
    const float *most;    /* a row's largest score, or nearly */
    const float *factors; /* a row's weight in the group's sum */
};

/* A block's keys, ready for products: all FAR_BLOCK of them, or its FAR_REPRESENTATIVES. Stored unsigned,
 * 128 larger: the instructions multiply signed by unsigned. */
struct far_keys8 {
    int dim, n;
    uint8_t *k; /* [n][dim], key = scale * (k - 128) */
    float scale;
};

struct far_scorer {
    const char *name;
    bool (*supported)(void);
    /* keys->k and scale from a record; keys->k has room, keys->dim and n are set. */
    void (*read)(struct far_keys8 *keys, const void *record);
    /* out [tiles][FAR_LANES] = the largest product of each row of at most FAR_TILES lane tiles over the block's
     * keys. */
    void (*best)(const int8_t *lanes, int tiles, const struct far_keys8 *keys, int32_t *out);
    /* The sum over rows of factors 2^(score - most), where a score is no more than most; scores from best(). */
    float (*share)(const int32_t *best, int tiles, float keys_scale, const struct far_rows *rows);
    /* scores [n][FAR_LANES] := 2^(scores - most), sums [FAR_LANES] = their sums over n; most [FAR_LANES] is not
     * below the scores. */
    void (*weigh)(float *scores, int64_t n, const float *most, double *sums);
    /* weights [n] += the sum over lanes of scores [n][FAR_LANES] times factors [FAR_LANES]. */
    void (*mix)(const float *scores, int64_t n, const float *factors, double *weights);
};

/* All of this build, fastest first; the last runs anywhere. */
const struct far_scorer *const *far_scorers(int *n_out);
const struct far_scorer *far_scorer_choose(void);

/* Row `row` of a lane tile := q [dim] f32, rounded; returns its scale, so that q = scale * what was written. q
 * NULL: zeros. */
float far_lanes_put(int8_t *lanes, int row, const float *q, int dim);

extern const struct far_scorer far_scorer_vnni, far_scorer_avx2, far_scorer_c;

#endif
