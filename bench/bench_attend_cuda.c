/* bench_attend_cuda [--tokens N]: how fast each attention kernel that this card can run is, in TFLOP/s (4 * dim for
 * each query row and key that it sees), in a causal prefill of N tokens from nothing (16384). Before that, each is
 * held against fp64 in small problems. peer_attend_torch.py measures PyTorch's kernels in the same shapes.
 *
 * It needs no more than CUDA. From the repository's root, for an H100 (for other cards, cmake -DLONGHAUL_GPU=cuda):
 *     nvcc -O3 -gencode arch=compute_90a,code=sm_90a -I. -o bench_attend_cuda bench/bench_attend_cuda.c \
 *         attention/attend_*_cuda.cu attention/attend_cuda.c base/device_cuda.c base/error.c \
 *         tests/unit/attend_case.c
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attend_cuda.h"
#include "base/gpu.h"
#include "base/num.h"
#include "tests/unit/attend_case.h"

enum { REPEATS = 12, WARM_UP = 3, PLAIN_SHARE = 8, KEY_TILE = 64 };

static const struct attend_cuda_kernel *const kernels[] = {&attend_cuda_sm90, &attend_cuda_sm80,
                                                           &attend_cuda_plain};
static const struct shape {
    int kv_heads, group, dim;
} shapes[] = {{16, 1, 64}, {16, 1, 128}, {3, 3, 64}, {16, 1, 80}, {16, 1, 96}, {8, 1, 256}};

static const int dims[] = {64, 80, 96, 128, 256};

enum {
    N_KERNELS = sizeof kernels / sizeof kernels[0],
    N_SHAPES = sizeof shapes / sizeof shapes[0],
    N_DIMS = sizeof dims / sizeof dims[0]
};

struct bench {
    struct attend_cuda call;
    float *unseen; /* m of rows that have seen nothing */
    cudaEvent_t begun, over;
};

static void must(cudaError_t code)
{
    if (code == cudaSuccess)
        return;
    fprintf(stderr, "bench_attend_cuda: %s\n", cudaGetErrorString(code));
    exit(1);
}

/* ---- right? ---- */

static void check_kernel(const struct attend_cuda_kernel *kernel, int dim)
{
    double o = 0, lse = 0;
    bool right = true;
    for (int i = 0; i < 8; i++) {
        const struct attend_case one = {.dim = dim,
                                        .group = 1 + i % 3,
                                        .tokens = 100 + 37 * i,
                                        .keys = 300 + 211 * i,
                                        .sight = (enum attend_sight)(i % 4),
                                        .calls = 1 + i / 4,
                                        .pages = i % 2,
                                        .bias = i == 5,
                                        .size = 3,
                                        .seed = 1 + (uint64_t)i};
        struct attend_errors errors;
        struct error err;
        if (attend_case_run(kernel, &one, &errors, &err) != 0) {
            fprintf(stderr, "bench_attend_cuda: %s\n", err.text);
            exit(1);
        }
        right = right && errors.o <= 1e-2 && errors.lse <= 1e-4 && errors.disturbed == 0; /* NaN is not */
        o = fmax(o, errors.o);
        lse = fmax(lse, errors.lse);
    }
    printf("%-12s dim %3d: off from fp64 by at most %.2g, log-sum-exp by %.2g%s\n", kernel->name, dim, o, lse,
           right ? "" : ": WRONG");
    fflush(stdout);
}

/* ---- fast? ---- */

static void *on_device(const void *from, size_t bytes)
{
    void *memory;
    must(cudaMalloc(&memory, bytes));
    must(cudaMemcpy(memory, from, bytes, cudaMemcpyHostToDevice));
    return memory;
}

static void *host_memory(size_t bytes)
{
    void *memory = malloc(bytes);
    if (!memory)
        must(cudaErrorMemoryAllocation);
    return memory;
}

static void *random_numbers(size_t n, float size, uint32_t seed)
{
    bf16 *numbers = host_memory(n * sizeof *numbers);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        numbers[i] = bf16_from_f32(size * ((float)(seed >> 8) * 0x1p-23f - 1.0f));
    }
    void *out = on_device(numbers, n * sizeof *numbers);
    free(numbers);
    return out;
}

static struct bench bench_make(const struct shape *shape, int64_t tokens)
{
    struct bench bench = {.call = {.kv_heads = shape->kv_heads, .group = shape->group, .dim = shape->dim}};
    const size_t rows = (size_t)(shape->kv_heads * shape->group * tokens), dim = (size_t)shape->dim;
    struct attend_cuda *call = &bench.call;
    call->tokens = tokens;
    call->key_rows = i64_round_up(tokens, KEY_TILE);
    const size_t keys = (size_t)shape->kv_heads * (size_t)call->key_rows;
    call->q = random_numbers(rows * dim, 1.7f * 1.4427f / sqrtf((float)dim), 1);
    call->k = random_numbers(keys * dim, 1.7f, 2);
    call->v = random_numbers(keys * dim, 1.7f, 3);
    struct attend_span *spans = host_memory((size_t)tokens * sizeof *spans);
    for (int64_t t = 0; t < tokens; t++)
        spans[t] = (struct attend_span){0, (int32_t)t + 1};
    call->spans = on_device(spans, (size_t)tokens * sizeof *spans);
    float *unseen = host_memory(rows * sizeof *unseen);
    for (size_t i = 0; i < rows; i++)
        unseen[i] = -INFINITY;
    bench.unseen = on_device(unseen, rows * sizeof *unseen);
    must(cudaMalloc((void **)&call->o, rows * dim * sizeof(float)));
    must(cudaMalloc((void **)&call->m, rows * sizeof(float)));
    must(cudaMalloc((void **)&call->l, rows * sizeof(float)));
    must(cudaEventCreateWithFlags(&bench.begun, cudaEventDefault));
    must(cudaEventCreateWithFlags(&bench.over, cudaEventDefault));
    free(spans);
    free(unseen);
    return bench;
}

static void bench_free(struct bench *bench)
{
    const void *all[] = {bench->call.q, bench->call.k, bench->call.v, bench->call.spans,
                         bench->call.o, bench->call.m, bench->call.l, bench->unseen};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        must(cudaFree((void *)all[i]));
    must(cudaEventDestroy(bench->begun));
    must(cudaEventDestroy(bench->over));
}

/* One prefill from nothing. */
static double milliseconds_of(struct bench *bench, const struct attend_cuda_kernel *kernel)
{
    const struct attend_cuda *call = &bench->call;
    const size_t rows = (size_t)(call->kv_heads * call->group * call->tokens);
    struct error err;
    float milliseconds;
    must(cudaMemcpyAsync(call->m, bench->unseen, rows * sizeof(float), cudaMemcpyDeviceToDevice, NULL));
    must(cudaMemsetAsync(call->l, 0, rows * sizeof(float), NULL));
    must(cudaMemsetAsync(call->o, 0, rows * (size_t)call->dim * sizeof(float), NULL));
    must(cudaEventRecord(bench->begun, NULL));
    if (kernel->attend(call, NULL, &err) != 0) {
        fprintf(stderr, "bench_attend_cuda: %s\n", err.text);
        exit(1);
    }
    must(cudaEventRecord(bench->over, NULL));
    must(cudaEventSynchronize(bench->over));
    must(cudaEventElapsedTime(&milliseconds, bench->begun, bench->over));
    return milliseconds;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const struct attend_cuda_kernel *kernel, const struct shape *shape, int64_t tokens)
{
    struct bench bench = bench_make(shape, tokens);
    double times[REPEATS];
    for (int i = 0; i < WARM_UP; i++)
        milliseconds_of(&bench, kernel);
    for (int i = 0; i < REPEATS; i++)
        times[i] = milliseconds_of(&bench, kernel);
    qsort(times, REPEATS, sizeof times[0], by_size);
    const double seen = 0.5 * (double)tokens * ((double)tokens + 1) * shape->kv_heads * shape->group;
    const double tflop = 4e-12 * shape->dim * seen, median = times[REPEATS / 2];
    printf("%-12s heads %2d/%-2d dim %3d tokens %6lld causal: %8.3f ms, %6.1f TFLOP/s (best %.1f)\n", kernel->name,
           shape->kv_heads * shape->group, shape->kv_heads, shape->dim, (long long)tokens, median,
           1e3 * tflop / median, 1e3 * tflop / times[0]);
    fflush(stdout);
    bench_free(&bench);
}

static int64_t parse(int argc, char **argv)
{
    const struct option names[] = {{"tokens", required_argument, NULL, 't'}, {0}};
    int64_t tokens = 16384;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;)
        tokens = c == 't' ? atoll(optarg) : 0;
    return tokens;
}

int main(int argc, char **argv)
{
    const int64_t tokens = parse(argc, argv);
    const int capability = gpu_capability();
    if (tokens < PLAIN_SHARE || tokens > INT32_MAX) {
        fprintf(stderr, "usage: bench_attend_cuda [--tokens N]\n");
        return 2;
    }
    if (capability == 0) {
        fprintf(stderr, "bench_attend_cuda: no GPU here\n");
        return 1;
    }
    for (int k = 0; k < N_KERNELS; k++)
        for (int d = 0; d < N_DIMS; d++)
            if (kernels[k]->supported(capability, dims[d]))
                check_kernel(kernels[k], dims[d]);
    for (int s = 0; s < N_SHAPES; s++)
        for (int k = 0; k < N_KERNELS; k++)
            if (kernels[k]->supported(capability, shapes[s].dim))
                measure(kernels[k], &shapes[s], kernels[k] == &attend_cuda_plain ? tokens / PLAIN_SHARE : tokens);
    return 0;
}
