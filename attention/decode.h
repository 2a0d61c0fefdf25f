/* Attention of one token's query over raw keys, rotated as they are read: the arithmetic of decoding.
 *
 * In decode every key is used once for each query head of its group, so packing it first would cost more than
 * the products. Rotations add up: q(position) . k(p) = R(position - base) q . R(p - base) k, and so with
 * perp(x), x turned by a right angle in each pair of rotated elements,
 *     score = sum_e k_e (C_e a_e + S_e b_e),  a = R(position - base) q,  b = -perp(a),
 * where C and S are the cosine and sine of the key's offset p - base, element by element: one small table serves
 * all keys, whatever pairs of elements are rotated (sine 0, cosine 1 where none are), and a query is turned once
 * for a run of keys near to a base.
 *
 * One variant per instruction set, all from decode_body.inc; decode_choose() finds the fastest. For each stretch
 * of keys: scores() for each run, then sums() once. Nothing here allocates.
 */
#ifndef LONGHAUL_ATTENTION_DECODE_H
#define LONGHAUL_ATTENTION_DECODE_H

#include <stdbool.h>

#include "attention/kernel.h"

enum {
    DECODE_STRETCH = 256, /* keys whose weights are summed at once: fixed, so that sums depend on nothing else */
    DECODE_STRIDE = DECODE_STRETCH + 16, /* floats between rows of scores; a vector may pass the last score */
    DECODE_RUN = 32,                     /* most keys of a run: their angles stay in the first-level cache */
    DECODE_OFFSETS = 256                 /* offsets from the base of a run are below this */
};

/* a and b of some rows from the angles, by element, of position - base. */
struct decode_turn {
    const float *q;               /* [rows][q, perp(q)][dim], times scale * log2(e) */
    const float *cosines, *sines; /* [dim] */
    float *out;                   /* [rows][a, b][dim] */
    int rows, dim;
};

/* Keys of one kv head near to one base. */
struct decode_run {
    const void *keys;        /* [n][dim] raw, of the dtype of the variant */
    const void *values;      /* [n][dim], which sums() will read: only fetched ahead here */
    const uint8_t *offsets;  /* [n] position - base */
    const float *angles;     /* [DECODE_OFFSETS][cosine, sine][dim] */
    const float *key_offset; /* [dim] added to each key, or NULL */
    const float *q;          /* [rows][a, b][dim], from turn() */
    float *scores;           /* row r at scores + r * DECODE_STRIDE; up to 15 floats behind the n are spoilt */
    int n, rows, dim;
};

/* Turn a stretch's scores into weights and compute the state of its rows (kernel.h), from nothing. */
struct decode_sums {
    const void *values; /* [n][dim] */
    float *scores;      /* [rows][DECODE_STRIDE] */
    struct attn_state state;
    int n, rows, dim;
};

struct decode_variant {
    const char *name; /* "avx512" */
    bool (*supported)(void);
    void (*turn)(const struct decode_turn *turn);
    void (*scores[2])(const struct decode_run *run); /* by enum dtype */
    void (*sums[2])(const struct decode_sums *sums);
};

/* All variants of this build, fastest first; the last runs anywhere. */
const struct decode_variant *const *decode_variants(int *n_out);

/* The fastest that this CPU can run. */
const struct decode_variant *decode_choose(void);

extern const struct decode_variant decode_variant_avx512, decode_variant_avx2, decode_variant_c;

#endif
