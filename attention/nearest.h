/* Nearest: attention to the `top` keys of a memory whose scores are the largest, exactly, query by query (a kNN
 * memory: Wu et al. 2022, arXiv:2203.08913; Tworkowski et al. 2023, arXiv:2307.03170).
 *
 * nearest_find scans the keys of a kv head for a tile of query rows and leaves each row's best in a heap;
 * nearest_sum makes of such a heap the softmax's state over these keys, which attn_attend() or attn_merge() then
 * carry on with. Of equal scores the earlier key is nearer. In plain C: the scan is a matrix product without exp.
 */
#ifndef LONGHAUL_ATTENTION_NEAREST_H
#define LONGHAUL_ATTENTION_NEAREST_H

#include "attention/kernel.h"
#include "attention/position.h"

enum { NEAREST_MOST = 1024 }; /* most keys that a query chooses */

/* A key and its score, in base 2 as attention/kernel.h has scores. */
struct nearest_key {
    float score;
    int32_t index;
};

/* The keys and values of one kv head, [n][dim] of the dtype, raw; all keys stand at position 0. */
struct nearest_rows {
    enum dtype dtype;
    const void *keys, *values;
    const float *key_offset; /* [dim], added to every key, or NULL */
    const struct rope *rope;
    int64_t n;
    int dim;
};

/* Query rows of that kv head: q [rows][dim] f32, rotated, times scale * log2(e); rows <= ATTN_QUERY_ROWS. */
struct nearest_queries {
    const float *q;
    int rows;
    int64_t top; /* 1 .. NEAREST_MOST */
};

/* best [rows][top]: the min(top, n) nearest keys of each row, in no order that means anything. scratch:
 * nearest_scratch_bytes(). Returns that number. */
int64_t nearest_find(const struct nearest_rows *keys, const struct nearest_queries *queries,
                     struct nearest_key *best, void *scratch);
size_t nearest_scratch_bytes(int dim);

/* Whether `a` is further than `b`: less, or of equal ones the later. */
bool nearest_is_further(struct nearest_key a, struct nearest_key b);

/* One row's state over the keys best [n]: o [dim], *m, *l. Nothing for n = 0. */
void nearest_sum(const struct nearest_rows *keys, const struct nearest_key *best, int64_t n,
                 const struct attn_state *state);

#endif
