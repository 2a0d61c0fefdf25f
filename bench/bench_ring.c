/* What the ring costs and what of its transfers is hidden, with the heads and layers of SmolLM2-135M.
 *
 *     mpirun -n RANKS bench_ring TOKENS THREADS bf16|f32
 *
 * prefill: one segment of TOKENS tokens attends to itself, several times; compare 2 ranks x 1 thread with 1 rank x
 * 2 threads: the ring is worth its name when they take as long. decode: one query over TOKENS tokens in each of 30
 * layers, as for one generated token; the bytes of keys and values read a second are the machine's limit. ways:
 * short and long segments at the end of TOKENS tokens, with the keys going round and with the queries, and what the
 * cost model says of both when it has measured the ring.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/decoder.h"
#include "attention/ring.h"

enum { HEADS = 9, KV_HEADS = 3, DIM = 64, LAYERS = 30, PREFILLS = 5, GENERATED = 20, CALLS = 9 };

struct bench {
    struct comm world;
    int64_t tokens;
    int threads;
    enum dtype dtype;
    const struct attn_kernel *kernel;
    struct pool *pool;
    struct rope *rope;
    struct transport *transport;
    struct memory *memory;
    struct ring *ring;
    struct decoder *decoder;
    int64_t block; /* this rank's tokens */
    float *q;      /* [block][HEADS][DIM] */
    void *out;
};

static float noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) / 8388608.0f - 1.0f;
}

/* This rank's zigzag block of random tokens. */
static int fill(struct bench *b, struct error *err)
{
    uint64_t seed = (uint64_t)b->world.rank + 1;
    float k[KV_HEADS * DIM], v[KV_HEADS * DIM];
    struct zigzag block = zigzag_block(0, b->tokens, b->world.rank, b->world.size);
    for (int i = 0; i < 2; i++) {
        for (int64_t p = block.first[i]; p < block.end[i]; p++, b->block++) {
            if (memory_extend(b->memory, &p, 1, err) < 0)
                return -1;
            for (int layer = 0; layer < LAYERS; layer++) {
                for (int e = 0; e < KV_HEADS * DIM; e++) {
                    k[e] = noise(&seed);
                    v[e] = noise(&seed);
                }
                memory_put(b->memory, layer, b->block, k, v);
            }
        }
    }
    for (int64_t i = 0; i < b->block * HEADS * DIM; i++)
        b->q[i] = noise(&seed);
    return 0;
}

static struct ring *make_ring(const struct bench *b, enum ring_way way, struct error *err)
{
    return ring_create(&(struct ring_options){.group = &b->world,
                                              .pool = b->pool,
                                              .device = device_cpu(),
                                              .kernel = b->kernel,
                                              .transport = b->transport,
                                              .heads = HEADS,
                                              .kv_heads = KV_HEADS,
                                              .dim = DIM,
                                              .max_block = b->tokens,
                                              .max_shard = b->tokens,
                                              .way = way},
                       err);
}

static int make(struct bench *b, struct error *err)
{
    const struct memory_shape shape = {
        .layers = LAYERS, .kv_heads = KV_HEADS, .dim = DIM, .dtype = b->dtype, .capacity = b->tokens};
    const struct rope_options rope = {.dims = DIM, .base = 100000, .max_positions = b->tokens + 1};
    if (!(b->kernel = attn_kernel_choose(b->dtype, NULL, err)) || !(b->pool = pool_create(b->threads, err)) ||
        !(b->rope = rope_create(&rope, err)) || !(b->transport = transport_mpi_create(&b->world, err)) ||
        !(b->memory = memory_create(&shape, device_cpu(), err)))
        return -1;
    b->ring = make_ring(b, RING_PASS_KV, err);
    b->decoder = decoder_create(&(struct decoder_options){.group = &b->world,
                                                          .pool = b->pool,
                                                          .device = device_cpu(),
                                                          .dtype = b->dtype,
                                                          .heads = HEADS,
                                                          .kv_heads = KV_HEADS,
                                                          .dim = DIM,
                                                          .max_keys = b->tokens},
                                err);
    b->q = device_cpu()->alloc((size_t)b->tokens * HEADS * DIM * sizeof(float), "queries", err);
    b->out = device_cpu()->alloc((size_t)b->tokens * HEADS * DIM * sizeof(float), "output", err);
    if (!b->ring || !b->decoder || !b->q || !b->out)
        return -1;
    if (b->world.rank == 0)
        printf("%d ranks x %d threads, %lld tokens, %s, kernel %s\n", b->world.size, b->threads,
               (long long)b->tokens, dtype_name(b->dtype), b->kernel->name);
    return fill(b, err);
}

static void destroy(struct bench *b)
{
    device_cpu()->free(b->out);
    device_cpu()->free(b->q);
    decoder_free(b->decoder);
    ring_free(b->ring);
    memory_free(b->memory);
    b->transport->free(b->transport);
    rope_free(b->rope);
    pool_free(b->pool);
}

static int prefill(struct bench *b, struct error *err)
{
    const struct ring_queries queries = {
        .q = b->q, .stride = HEADS * DIM, .tokens = b->block, .scale = 0.125f, .rope = b->rope, .out = b->out};
    double best = 1e30;
    for (int i = 0; i < PREFILLS; i++) {
        if (comm_barrier(&b->world, err) < 0)
            return -1;
        double start = MPI_Wtime();
        if (ring_attend(b->ring, b->memory, i, &queries, err) < 0 || comm_barrier(&b->world, err) < 0)
            return -1;
        double seconds = MPI_Wtime() - start;
        best = seconds < best ? seconds : best;
    }
    if (b->world.rank > 0)
        return 0;
    struct ring_stats stats = ring_stats(b->ring);
    double products = 2.0 * (double)b->tokens * (double)b->tokens * HEADS * DIM; /* two, causal, 2 flops */
    printf("prefill: %.1f ms a layer, %.1f GFLOP/s; of rank 0, per layer: pack %.2f ms, attend %.1f ms", best * 1e3,
           products / best * 1e-9, stats.pack_seconds / PREFILLS * 1e3, stats.attend_seconds / PREFILLS * 1e3);
    if (stats.hops > 0)
        printf(", sent %.2f MB, transfer %.2f ms, wait %.2f ms: %.1f%% hidden",
               (double)stats.bytes_sent / PREFILLS * 1e-6, stats.transfer_seconds / PREFILLS * 1e3,
               stats.wait_seconds / PREFILLS * 1e3, 100 - 100 * stats.wait_seconds / stats.transfer_seconds);
    printf("\n");
    return 0;
}

static int decode(struct bench *b, struct error *err)
{
    float q[HEADS * DIM], out[HEADS * DIM];
    uint64_t seed = 7;
    double best = 1e30;
    for (int e = 0; e < HEADS * DIM; e++)
        q[e] = noise(&seed);
    for (int i = 0; i < GENERATED; i++) {
        if (comm_barrier(&b->world, err) < 0)
            return -1;
        double start = MPI_Wtime();
        for (int layer = 0; layer < LAYERS; layer++) {
            const struct decoder_query query = {.q = q, .scale = 0.125f, .rope = b->rope, .out = out};
            const struct decoder_part part = {.keys = memory_keys(b->memory, layer, 0),
                                              .values = memory_values(b->memory, layer, 0),
                                              .head_stride_bytes = (size_t)b->tokens * DIM * dtype_size(b->dtype),
                                              .positions = b->memory->positions,
                                              .n = b->memory->length,
                                              .query_position = b->tokens,
                                              .weight = 1};
            if (decoder_attend(b->decoder, &query, &part, 1, err) < 0)
                return -1;
        }
        double seconds = MPI_Wtime() - start;
        best = seconds < best ? seconds : best;
    }
    double bytes = 2.0 * LAYERS * KV_HEADS * DIM * (double)dtype_size(b->dtype) * (double)b->tokens;
    if (b->world.rank == 0)
        printf("decode: %.2f ms a token (%d layers), %.1f GB/s of keys and values\n", best * 1e3, LAYERS,
               bytes / best * 1e-9);
    return 0;
}

/* The same random tokens, at other positions: a segment of `segment` behind all the others. */
static int lay_out(struct bench *b, int64_t segment, struct error *err)
{
    const int64_t borders[] = {0, b->tokens - segment, b->tokens};
    memory_reset(b->memory);
    for (int s = 0; s < 2; s++) {
        const struct zigzag block = zigzag_block(borders[s], borders[s + 1], b->world.rank, b->world.size);
        b->block = 0;
        for (int i = 0; i < 2; i++)
            for (int64_t p = block.first[i]; p < block.end[i]; p++, b->block++)
                if (memory_extend(b->memory, &p, 1, err) < 0)
                    return -1;
    }
    return 0;
}

/* The best of several calls; what the last of them adds to the ring's own account is its prediction. */
struct way_times {
    double seconds, predicted_kv, predicted_q;
    bool passed_q;
};

static int time_way(struct bench *b, enum ring_way way, struct way_times *out, struct error *err)
{
    const struct ring_queries queries = {
        .q = b->q, .stride = HEADS * DIM, .tokens = b->block, .scale = 0.125f, .rope = b->rope, .out = b->out};
    struct ring *ring = make_ring(b, way, err);
    int status = ring ? 0 : -1;
    out->seconds = 1e30;
    for (int i = 0; i < CALLS && status == 0; i++) {
        const struct ring_stats before = ring_stats(ring);
        status = comm_barrier(&b->world, err) | ring_attend(ring, b->memory, i % LAYERS, &queries, err);
        const struct ring_stats after = ring_stats(ring);
        const double seconds = after.round_seconds - before.round_seconds;
        out->seconds = seconds < out->seconds ? seconds : out->seconds;
        out->predicted_kv = after.predicted_kv_seconds - before.predicted_kv_seconds;
        out->predicted_q = after.predicted_q_seconds - before.predicted_q_seconds;
        out->passed_q = after.passed_q > before.passed_q;
    }
    ring_free(ring);
    return status;
}

static int ways(struct bench *b, struct error *err)
{
    if (b->world.rank == 0)
        printf("ways: ms a layer of rank 0, packing aside\n"
               " segment    past   pass-KV    pass-Q   predicted KV         Q   chosen\n");
    for (int64_t segment = 1; segment <= b->tokens; segment *= 4) {
        struct way_times kv, q, cheaper;
        if (lay_out(b, segment, err) < 0 || time_way(b, RING_PASS_KV, &kv, err) < 0 ||
            time_way(b, RING_PASS_Q, &q, err) < 0 || time_way(b, RING_CHEAPER, &cheaper, err) < 0)
            return -1;
        if (b->world.rank == 0)
            printf("%8lld %7lld %9.3f %9.3f %14.3f %9.3f   %s\n", (long long)segment,
                   (long long)(b->tokens - segment), kv.seconds * 1e3, q.seconds * 1e3, cheaper.predicted_kv * 1e3,
                   cheaper.predicted_q * 1e3, cheaper.passed_q ? "pass-Q" : "pass-KV");
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    struct error err;
    if (comm_init(&bench.world, &err) < 0)
        comm_abort(&err);
    if (argc == 4) {
        bench.tokens = strtoll(argv[1], NULL, 10);
        bench.threads = (int)strtol(argv[2], NULL, 10);
        bench.dtype = strcmp(argv[3], "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    }
    if (bench.tokens < 1 || bench.threads < 1) {
        error_set(&err, ERROR_USAGE, "usage: bench_ring TOKENS THREADS bf16|f32");
        comm_abort(&err);
    }
    if (make(&bench, &err) < 0 || prefill(&bench, &err) < 0 || decode(&bench, &err) < 0 ||
        (bench.world.size > 1 && ways(&bench, &err) < 0))
        comm_abort(&err);
    destroy(&bench);
    comm_finish(&bench.world);
    return 0;
}
