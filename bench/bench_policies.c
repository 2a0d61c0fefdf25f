/* bench_policies MODEL.gguf TEXT DISTANCE[,DISTANCE...] POLICY...: what a policy remembers, and what it costs.
 *
 * The sequence is the beginning of the text: a passage of 740 tokens, what follows it up to DISTANCE, and the
 * passage again. For each policy: nats a token of the passage the first and the second time (a model that remembers
 * it says it almost for nothing), nats a token of the prose between, by eighths, the bytes of keys and values held
 * at the end, tokens/s, and the share of this machine's limit: of the time that the multiply-adds of the linear
 * layers, the head and the keys that are attended to, and the eight-bit products of retrieval, take at the measured
 * peaks of a core, times the threads of all ranks. Under mpirun the ranks form one ring.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "bench/limit.h"
#include "io/document.h"
#include "io/gguf.h"
#include "model/forward.h"
#include "model/tokenizer.h"

enum { SEGMENT = 2048, PASSAGE = 740, EIGHTHS = 8 };

struct bench {
    struct comm world, node;
    struct gguf *gguf;
    struct model *model;
    struct tokenizer *tokenizer;
    struct pool *pool;
    const struct attn_kernel *kernel;
    struct policy_spec *policies;
    struct token_list text;
    int64_t length;
    int32_t *tokens, *target, *top1; /* [length] */
    float *logprob;
};

static int make_sequence(struct bench *b, int64_t distance, struct error *err)
{
    b->length = distance + PASSAGE;
    if (distance < 2 * PASSAGE || distance > b->text.count)
        return error_set(err, ERROR_USAGE, "a distance of %" PRId64 " tokens; the text has %" PRId64, distance,
                         b->text.count);
    b->tokens = realloc(b->tokens, (size_t)(b->length + 1) * sizeof *b->tokens);
    b->target = realloc(b->target, (size_t)b->length * sizeof *b->target);
    b->top1 = realloc(b->top1, (size_t)b->length * sizeof *b->top1);
    b->logprob = realloc(b->logprob, (size_t)b->length * sizeof *b->logprob);
    if (!b->tokens || !b->target || !b->top1 || !b->logprob)
        return error_set(err, ERROR_RESOURCE, "no memory for %" PRId64 " tokens", b->length);
    memcpy(b->tokens, b->text.ids, (size_t)distance * sizeof *b->tokens);
    memcpy(b->tokens + distance, b->text.ids, PASSAGE * sizeof *b->tokens);
    b->tokens[b->length] = 0;
    memcpy(b->target, b->tokens + 1, (size_t)b->length * sizeof *b->target);
    return 0;
}

static int read_all(struct bench *b, struct forward *forward, struct error *err)
{
    for (int64_t at = 0; at < b->length; at += SEGMENT) {
        const int64_t n = i64_min(SEGMENT, b->length - at);
        const struct forward_scores scores = {b->target + at, b->logprob + at, b->top1 + at};
        if (forward_segment(forward, b->tokens + at, n, err) != 0 || forward_score(forward, &scores, err) != 0)
            return -1;
        if (b->world.rank == 0 && at / SEGMENT % 16 == 15)
            fprintf(stderr, "%" PRId64 " of %" PRId64 " tokens\r", at, b->length);
    }
    return 0;
}

/* Nats a token of the predictions first .. end - 1: prediction i is of token i + 1. */
static double nats(const struct bench *b, int64_t first, int64_t end)
{
    double sum = 0;
    for (int64_t i = first; i < end; i++)
        sum -= b->logprob[i];
    return sum / (double)(end - first);
}

/* The seconds that all of it takes at this machine's limit, the same policy in all layers. */
static double limit(const struct bench *b)
{
    const struct limit limit = limit_of(b->model, b->policies, b->length, SEGMENT);
    return limit_seconds(&limit) / (pool_threads(b->pool) * b->world.size);
}

static void print_row(const struct bench *b, const char *name, const struct forward *forward, double seconds)
{
    const int64_t distance = b->length - PASSAGE, prose = distance - PASSAGE;
    printf("%-44s %8" PRId64 " %7.3f %7.3f ", name, distance, nats(b, 1, PASSAGE - 1),
           nats(b, distance, b->length - 1));
    for (int i = 0; i < EIGHTHS; i++)
        printf(" %6.3f", nats(b, PASSAGE + prose * i / EIGHTHS, PASSAGE + prose * (i + 1) / EIGHTHS));
    printf("  %6.3f %9.1f %8.0f %5.0f%%\n", nats(b, PASSAGE, distance - 1),
           (double)forward_resident(forward) / (1 << 20), (double)b->length / seconds, 100 * limit(b) / seconds);
    fflush(stdout);
}

static int measure(struct bench *b, const char *name, struct error *err)
{
    struct policy_spec spec;
    if (policy_parse(name, &spec, err) != 0)
        return -1;
    for (int layer = 0; layer < b->model->shape.layers; layer++)
        b->policies[layer] = spec;
    const struct forward_options options = {
        .model = b->model,
        .group = &b->world,
        .pool = b->pool,
        .device = device_cpu(),
        .kernel = b->kernel,
        .policies = b->policies,
        .scores = true,
        .segment = SEGMENT,
        .max_tokens = b->length,
    };
    struct forward *forward = forward_create(&options, err);
    const double begun = clock_seconds();
    const int status = forward ? read_all(b, forward, err) : -1;
    if (status == 0 && b->world.rank == 0)
        print_row(b, name, forward, clock_seconds() - begun);
    forward_free(forward);
    return status;
}

static int prepare(struct bench *b, const char *model, const char *text, struct error *err)
{
    struct document_text document = {0};
    const enum dtype dtype = cpu_features().fast_bf16 ? DTYPE_BF16 : DTYPE_F32;
    const int threads = cpu_cores() / b->world.size;
    if (comm_node(&b->world, &b->node, err) != 0 || !(b->gguf = gguf_open(model, err)) ||
        !(b->model = model_open(gguf_bundle(b->gguf), err)) ||
        !(b->tokenizer = tokenizer_create(gguf_bundle(b->gguf), err)) ||
        !(b->pool = pool_create(threads > 0 ? threads : 1, err)) ||
        !(b->kernel = attn_kernel_choose(dtype, NULL, err)))
        return -1;
    const struct model_pack_options pack = {dtype, true, b->pool, &b->node, device_cpu(), MODEL_ROWS_NONE, false};
    if (model_pack(b->model, &pack, err) != 0 || document_read(text, &document, err) != 0)
        return -1;
    const int status = tokenizer_encode(b->tokenizer, (struct text){document.text, document.length}, &b->text, err);
    document_text_free(&document);
    if (!(b->policies = calloc((size_t)b->model->shape.layers, sizeof *b->policies)))
        return error_set(err, ERROR_RESOURCE, "no memory for the policies");
    return status;
}

static int measure_all(struct bench *b, const char *distances, char **policies, int n, struct error *err)
{
    if (b->world.rank == 0)
        printf("%-44s %8s %7s %7s  prose by eighths%39s %7s %9s %8s %6s\n", "policy", "distance", "first", "again",
               "", "prose", "MiB held", "tokens/s", "limit");
    for (const char *at = distances; *at; at += strcspn(at, ","), at += *at == ',') {
        if (make_sequence(b, strtoll(at, NULL, 10), err) != 0)
            return -1;
        for (int i = 0; i < n; i++)
            if (measure(b, policies[i], err) != 0)
                return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    struct error err = {0};
    if (argc < 5) {
        fprintf(stderr, "usage: bench_policies MODEL.gguf TEXT DISTANCE[,DISTANCE...] POLICY...\n");
        return ERROR_USAGE;
    }
    int status = comm_init(&b.world, &err);
    if (status == 0)
        status = prepare(&b, argv[1], argv[2], &err);
    if (status == 0)
        status = measure_all(&b, argv[3], argv + 4, argc - 4, &err);
    if (status != 0) {
        fprintf(stderr, "bench_policies: %s\n", err.text);
        comm_abort(&err);
    }
    free(b.tokens);
    free(b.target);
    free(b.top1);
    free(b.logprob);
    free(b.policies);
    token_list_free(&b.text);
    tokenizer_free(b.tokenizer);
    model_free(b.model);
    pool_free(b.pool);
    gguf_free(b.gguf);
    comm_free(&b.node);
    comm_finish(&b.world);
    return 0;
}
