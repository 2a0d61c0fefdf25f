/* Ring Attention: exact attention of one segment over everything earlier, or on a GPU over a window of it, shared
 * by the ranks of a ring group.
 *
 * Every rank holds a block of the segment's queries and a shard of the keys (its memory). Either the packed keys
 * and values of each rank travel once round the ring, the next hop in flight while the last is being attended to
 * (pass-KV, Liu et al. 2023), or the queries do, with what they have summed so far (pass-Q, for a short segment
 * over a long memory). A cost model chooses for each call; the answer is the same but for the order of fp32 sums.
 * The online softmax of a query is carried in fp32 over every shard and cast once at the end. Long shards go in
 * pieces, one round each, so that the buffers do not grow with them.
 *
 * Zigzag (zhuzilin/ring-flash-attention): a segment is cut in 2R blocks, rank r takes blocks r and 2R-1-r, so that
 * causal work is equal and no masked tile is computed. Borders lie at absolute multiples of ZIGZAG_GRAIN; blocks
 * may be empty.
 *
 * ring_create; per segment: zigzag_block to learn this rank's tokens, memory_extend; per layer: memory_put
 * for each token, ring_attend. All ranks of the group make the same calls, but their shards may be of any length,
 * also empty, and hold any tokens: positions travel with the keys. (One token's query: attention/decoder.h.)
 */
#ifndef LONGHAUL_ATTENTION_RING_H
#define LONGHAUL_ATTENTION_RING_H

#include <stdint.h>

#include "attention/kernel.h"
#include "attention/memory.h"
#include "attention/position.h"
#include "attention/transport.h"
#include "base/comm.h"
#include "base/device.h"
#include "base/pool.h"

struct ring;

/* Which way round. RING_CHEAPER is for the program; the others for tests and measurements. */
enum ring_way { RING_CHEAPER, RING_PASS_KV, RING_PASS_Q };

struct ring_options {
    const struct comm *group; /* borrowed, as all below; size 1 is a ring of one */
    struct pool *pool;
    const struct device *device;
    const struct attn_kernel *kernel;
    struct transport *transport; /* may be NULL in a ring of one */
    int heads, kv_heads, dim;
    int64_t max_block; /* most query tokens of one rank in one segment */
    int64_t max_shard; /* most tokens of any rank's memory */
    int64_t max_piece; /* most tokens that travel at once; 0: what is good for long memories */
    enum ring_way way;
    void (*poll)(void *context); /* called often from the calling thread, may be NULL */
    void *poll_context;
};

/* Bytes that ring_create will allocate: two packed pieces of a shard of one layer (one in a ring of one), the
 * queries and sums of a block, and what is small beside them. Of the group only its size is looked at, and no
 * transport is needed.
 */
int ring_bytes(const struct ring_options *options, size_t *out, struct error *err);

/* Most bytes of a hop, either way. */
int ring_hop_bytes(const struct ring_options *options, size_t *out, struct error *err);

/* ERROR_INPUT for heads it cannot do, ERROR_RESOURCE without memory. Nothing is allocated later. */
struct ring *ring_create(const struct ring_options *options, struct error *err);
void ring_free(struct ring *ring);

/* A multiple of ATTN_KEY_TILE, so that tiles are whole, and the number of queries for which some policies choose
 * keys together: they lie on one rank. */
enum { ZIGZAG_GRAIN = 128 };

/* The tokens of segment [first, end) that `rank` of `ranks` holds, as at most two stretches in rising order;
 * an unused stretch is empty. Together the ranks hold each token once. */
struct zigzag {
    int64_t first[2], end[2];
};
struct zigzag zigzag_block(int64_t first, int64_t end, int rank, int ranks);

/* The queries of this rank's block: the last `tokens` tokens of its memory, which see every token up to themselves,
 * or of these a window.
 * q: row t is q + t * stride, [heads][dim] f32, raw; scale is 1/sqrt(dim) or the model's own.
 * out [tokens][heads * dim] in the kernel's dtype. `tokens` may be 0: the rank still passes keys on. */
struct ring_queries {
    const float *q;
    int64_t stride; /* in floats */
    int64_t tokens;
    float scale;
    const struct rope *rope;
    int64_t window; /* on a device that the host cannot reach: positions that are seen, its own counted; 0: all */
    void *out;
};

/* `layer` counts the layers of this memory, which may be some of a model's. ERROR_INTERNAL for what the ring was
 * not made for, ERROR_CLUSTER for MPI; after that the ring is of no more use, and neither are those of the other
 * ranks. */
int ring_attend(struct ring *ring, const struct memory *memory, int layer, const struct ring_queries *queries,
                struct error *err);

/* One token's query over what it sees of this rank's own shard; nothing goes round. For memory on a device
 * that the host cannot reach; elsewhere decoder.h does it. The results of all ranks are to be merged. Arrays are
 * the device's. */
struct ring_one {
    const float *q;     /* [heads][dim] raw */
    const float *k, *v; /* [kv_heads][dim] of the token itself, for which memory_extend has made room at the end:
                         * kept there first. NULL on ranks that do not hold it */
    int64_t position;   /* not before any key's */
    int64_t window;     /* as in ring_queries */
    float scale;
    const struct rope *rope;
    float *o; /* [heads][dim] */
    /* [heads] natural log-sum-exps, -inf where the shard is empty; short of what all keys add, alike on all ranks
     */
    float *lse;
};
int ring_attend_one(struct ring *ring, const struct memory *memory, int layer, const struct ring_one *one,
                    struct error *err);

/* What the ring has done since it was made, for the log and the benches. Seconds of this rank's calling thread. */
struct ring_stats {
    double pack_seconds, attend_seconds;
    double transfer_seconds; /* from the start of each hop to its end                              */
    double wait_seconds;     /* of those, spent with nothing to compute: 1 - wait/transfer is hidden */
    int64_t hops;
    size_t bytes_sent;
    /* In a ring of more than one: calls that went either way, what the cost model said of all calls for either way,
     * and what they took. Packing is in none of the three. */
    int64_t passed_kv, passed_q;
    double predicted_kv_seconds, predicted_q_seconds, round_seconds;
};
struct ring_stats ring_stats(const struct ring *ring);

#endif
