/* What a call of the ring will cost, by either way round, and how fast the ring has been so far.
 *
 * Keys on their way are hidden behind the arithmetic of the keys before them; queries carry their sums with them,
 * so their hops lie bare between the arithmetic. With C(a, b) the seconds in which one rank attends with the
 * queries of rank a to the keys of rank b, B bytes a second, and x a rank (the slowest governs each hop), a hop
 * takes, but for the last one of pass-KV, which moves nothing:
 *
 *     pass-KV   max_x max(C(x, x - hop), (bytes of the keys of x - hop - 1) / B)
 *     pass-Q    max_x C(x - hop, x) + max_x (bytes of the queries of x - hop) / B
 *
 * Packing, which both need once, is not in it, and the arithmetic is the same: keys go round as long as they hide
 * behind it, and beyond that while they are the fewer bytes. (The two ways and the question: "Context Parallelism
 * for Scalable Million-Token Inference", Yang et al. 2024, arXiv:2411.01783.)
 */
#ifndef LONGHAUL_ATTENTION_RING_COST_H
#define LONGHAUL_ATTENTION_RING_COST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rates as this rank sees them. */
struct ring_rates {
    double link;   /* bytes a second, each way of a hop */
    double kernel; /* flops a second of all threads */
};

/* Before anything is measured: a 10 Gbit/s link, and 40 GFLOP/s a thread. */
struct ring_rates ring_rates_default(int threads);

/* A hop was over after so many seconds; waited: nobody computed when it ended. A neighbour that comes late makes a
 * link look slow, never fast, so that a higher rate is believed at once and a lower one by degrees, and that only
 * where the end was waited for. Small hops tell nothing. */
void ring_rates_hop(struct ring_rates *rates, size_t bytes, double seconds, bool waited);
void ring_rates_attend(struct ring_rates *rates, double flops, double seconds);

/* What every rank tells the others of itself before a call. */
struct ring_share {
    int64_t shard, block; /* tokens of its memory; queries, which are the last of them */
    struct ring_rates rates;
};

struct ring_cost {
    const struct ring_share *shares; /* [ranks] */
    int ranks;
    int64_t rounds;     /* pieces in which the shards go: queries go round as often */
    double key_bytes;   /* of a key and its value in all heads, packed */
    double query_bytes; /* of a query in all heads with its sums */
    double pair_flops;  /* of a query and a key in all heads */
};

struct ring_prediction {
    double pass_kv, pass_q; /* seconds */
};

/* The same on every rank, since all know the same shares. */
struct ring_prediction ring_cost_predict(const struct ring_cost *cost);

#endif
