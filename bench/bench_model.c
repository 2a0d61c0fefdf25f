/* bench_model MODEL.gguf [THREADS [LENGTH...]]: tokens/s of a real model, reading (prefill) and writing (decode),
 * as a whole and against the limit that this machine's measured peak sets. Under mpirun the ranks form one ring.
 *
 * The limit counts the multiply-adds of the linear layers and of the unmasked half of attention, at the measured
 * peak of one core times the threads of all ranks. The text is random token ids: speed does not depend on them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "bench/peak.h"
#include "io/gguf.h"
#include "model/forward.h"

enum { SEGMENT = 2048, DECODED = 32, MAX_LENGTHS = 8 };

struct bench {
    struct comm world, node;
    struct gguf *gguf;
    struct model *model;
    struct pool *pool;
    const struct attn_kernel *kernel;
    int32_t *tokens;
    float *logits;
};

static int read_tokens(struct bench *b, struct forward *forward, int64_t length, double *seconds, struct error *err)
{
    const double begun = clock_seconds();
    forward_reset(forward);
    for (int64_t at = 0; at < length; at += SEGMENT)
        if (forward_segment(forward, b->tokens + at, i64_min(SEGMENT, length - at), err) != 0)
            return -1;
    *seconds = clock_seconds() - begun;
    return 0;
}

static int write_tokens(struct bench *b, struct forward *forward, double *seconds, struct error *err)
{
    if (forward_next(forward, b->logits, err) != 0)
        return -1;
    const double begun = clock_seconds();
    for (int i = 0; i < DECODED; i++)
        if (forward_step(forward, b->tokens[i], b->logits, err) != 0)
            return -1;
    *seconds = clock_seconds() - begun;
    return 0;
}

static double limit(const struct bench *b, int64_t length)
{
    const struct model_shape *s = &b->model->shape;
    const double flops =
        2.0 * (double)model_linear_weights(b->model) + 2.0 * s->layers * s->heads * s->dim * (double)length;
    return peak_of_fastest() * 1e9 * pool_threads(b->pool) * b->world.size / flops;
}

static int measure(struct bench *b, int64_t length, struct error *err)
{
    const struct forward_options options = {
        .model = b->model,
        .group = &b->world,
        .pool = b->pool,
        .device = device_cpu(),
        .kernel = b->kernel,
        .segment = SEGMENT,
        .max_tokens = length + DECODED + 1,
        .max_generated = DECODED,
    };
    struct forward *forward = forward_create(&options, err);
    double read = 0, written = 0, best = 0;
    int status = forward ? 0 : -1;
    for (int repeat = 0; repeat < (length <= 4096 ? 3 : 1) && status == 0; repeat++) {
        status = read_tokens(b, forward, length, &read, err);
        best = repeat == 0 || read < best ? read : best;
    }
    if (status == 0)
        status = write_tokens(b, forward, &written, err);
    if (status == 0 && b->world.rank == 0) {
        const struct ring_stats ring = forward_ring_stats(forward);
        printf("%8" PRId64 " %10.0f %9.0f%% %10.1f", length, (double)length / best,
               100 * (double)length / best / limit(b, length), DECODED / written);
        printf(ring.hops ? " %9.0f%%\n" : "         -\n",
               ring.transfer_seconds > 0 ? 100 * (1 - ring.wait_seconds / ring.transfer_seconds) : 100.0);
    }
    forward_free(forward);
    return status;
}

static int prepare(struct bench *b, const char *path, int threads, int64_t longest, struct error *err)
{
    if (comm_node(&b->world, &b->node, err) != 0 || !(b->gguf = gguf_open(path, err)) ||
        !(b->model = model_open(gguf_bundle(b->gguf), err)) || !(b->pool = pool_create(threads, err)))
        return -1;
    const enum dtype dtype = cpu_features().fast_bf16 ? DTYPE_BF16 : DTYPE_F32;
    const struct model_pack_options pack = {dtype, false, b->pool, &b->node, device_cpu(), MODEL_ROWS_NONE, false};
    if (!(b->kernel = attn_kernel_choose(dtype, NULL, err)) || model_pack(b->model, &pack, err) != 0)
        return -1;
    b->tokens = malloc((size_t)longest * sizeof *b->tokens);
    b->logits = malloc((size_t)b->model->shape.vocab * sizeof *b->logits);
    if (!b->tokens || !b->logits)
        return error_set(err, ERROR_RESOURCE, "no memory for %" PRId64 " tokens", longest);
    for (int64_t i = 0; i < longest; i++)
        b->tokens[i] = (int32_t)(i * 7919 % b->model->shape.vocab);
    return 0;
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    struct error err = {0};
    int64_t lengths[MAX_LENGTHS] = {512, 4096, 16384};
    int n_lengths = 3;
    const int threads = argc > 2 ? atoi(argv[2]) : cpu_cores();
    if (argc < 2 || threads < 1 || argc > 3 + MAX_LENGTHS) {
        fprintf(stderr, "usage: bench_model MODEL.gguf [THREADS [LENGTH...]]\n");
        return ERROR_USAGE;
    }
    for (int i = 3; i < argc; i++) {
        lengths[i - 3] = strtoll(argv[i], NULL, 10);
        n_lengths = i - 2;
    }
    int64_t longest = DECODED;
    for (int i = 0; i < n_lengths; i++)
        longest = i64_max(longest, lengths[i]);
    int status = comm_init(&b.world, &err);
    if (status == 0)
        status = prepare(&b, argv[1], threads, longest, &err);
    if (status == 0 && b.world.rank == 0) {
        char cpu[128];
        cpu_model_name(cpu, sizeof cpu);
        printf("%s; %d ranks x %d threads; %s; peak of a core f32 %.0f, bf16 %.0f GFLOP/s\n", cpu, b.world.size,
               threads, b.kernel->name, peak_of_core(DTYPE_F32), peak_of_core(DTYPE_BF16));
        printf("%8s %10s %10s %10s %10s\n", "tokens", "prefill/s", "of limit", "decode/s", "hidden");
    }
    for (int i = 0; i < n_lengths && status == 0; i++)
        status = measure(&b, lengths[i], &err);
    if (status != 0) {
        fprintf(stderr, "bench_model: %s\n", err.text);
        comm_abort(&err);
    }
    free(b.tokens);
    free(b.logits);
    model_free(b.model);
    pool_free(b.pool);
    gguf_free(b.gguf);
    comm_free(&b.node);
    comm_finish(&b.world);
    return 0;
}
