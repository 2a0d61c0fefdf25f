#include "attention/policy.h"
#include "attention/ring.h"
#include "base/num.h"

_Static_assert((int)ZIGZAG_GRAIN % (int)ATTN_KEY_TILE == 0 && (int)ZIGZAG_GRAIN % (int)POLICY_GROUP == 0,
               "whole tiles, and queries that choose together, lie on one rank");

/* Where block b of n begins: an even share of the segment, moved to the nearest multiple of the grain. */
static int64_t border(int64_t first, int64_t end, int64_t b, int64_t n)
{
    if (b == 0)
        return first;
    if (b == n)
        return end;
    int64_t length = end - first;
    int64_t even = first + length / n * b + length % n * b / n;
    int64_t near = (even + ZIGZAG_GRAIN / 2) / ZIGZAG_GRAIN * ZIGZAG_GRAIN;
    return i64_max(first, i64_min(near, end));
}

struct zigzag zigzag_block(int64_t first, int64_t end, int rank, int ranks)
{
    const int64_t n = 2 * (int64_t)ranks, early = rank, late = n - 1 - rank;
    return (struct zigzag){
        .first = {border(first, end, early, n), border(first, end, late, n)},
        .end = {border(first, end, early + 1, n), border(first, end, late + 1, n)},
    };
}
