/* bench_attend_one_cuda [--keys N]: how long attention of one token over N raw keys takes (1048576), in GB/s of
 * keys, values and positions that it has to read, and what share that is of what the card copies within its memory
 * in the same run. It needs no more than CUDA.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "attention/attend_one_cuda.h"
#include "base/device.h"
#include "base/num.h"

enum { REPEATS = 20, WARM_UP = 3, COPIED = 1 << 30 };

static const struct shape {
    int kv_heads, group, dim;
} shapes[] = {{3, 3, 64}, {2, 7, 64}, {8, 4, 128}, {1, 4, 256}};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static const struct device *gpu;
static struct error err;
static cudaEvent_t begun, over;

static void must(bool right, const char *what)
{
    if (right)
        return;
    fprintf(stderr, "bench_attend_one_cuda: %s\n", what);
    exit(1);
}

static void cuda_must(cudaError_t code)
{
    must(code == cudaSuccess, cudaGetErrorString(code));
}

/* Zeros: what is read takes as long whatever it is. */
static void *room(size_t bytes)
{
    void *memory = gpu->alloc(bytes, "a bench", &err);
    must(memory != NULL, err.text);
    return memory;
}

static double milliseconds(void)
{
    float between;
    cuda_must(cudaEventRecord(over, NULL));
    cuda_must(cudaEventSynchronize(over));
    cuda_must(cudaEventElapsedTime(&between, begun, over));
    return (double)between;
}

/* GB/s that are read and written when memory is copied. */
static double copied_rate(void)
{
    double best = INFINITY;
    char *from = room(COPIED), *to = room(COPIED);
    for (int i = 0; i < REPEATS; i++) {
        cuda_must(cudaEventRecord(begun, NULL));
        cuda_must(cudaMemcpyAsync(to, from, COPIED, cudaMemcpyDeviceToDevice, NULL));
        best = fmin(best, milliseconds());
    }
    gpu->free(from);
    gpu->free(to);
    return 2e-6 * COPIED / best;
}

static const int64_t *rising_positions(int64_t n)
{
    const size_t bytes = (size_t)n * sizeof(int64_t);
    int64_t *positions = malloc(bytes), *there = room(bytes);
    must(positions != NULL, "no memory for positions");
    for (int64_t i = 0; i < n; i++)
        positions[i] = i;
    must(gpu->copy(there, positions, bytes, DEVICE_FROM_HOST, NULL, &err) == 0 && gpu->stream_wait(NULL, &err) == 0,
         err.text);
    free(positions);
    return there;
}

static struct attend_one_cuda make_call(const struct shape *shape, int64_t n)
{
    const int heads = shape->kv_heads * shape->group;
    const size_t row = (size_t)shape->dim * sizeof(float);
    const size_t bytes = (size_t)shape->kv_heads * (size_t)n * (size_t)shape->dim * sizeof(bf16);
    return (struct attend_one_cuda){.heads = heads,
                                    .kv_heads = shape->kv_heads,
                                    .dim = shape->dim,
                                    .q = room((size_t)heads * row),
                                    .position = n,
                                    .scale = 1 / sqrtf((float)shape->dim),
                                    .n = n,
                                    .capacity = n,
                                    .keys = room(bytes),
                                    .values = room(bytes),
                                    .positions = rising_positions(n),
                                    .parts = room(attend_one_cuda_parts(heads, shape->dim) * sizeof(float)),
                                    .out = room((size_t)heads * row),
                                    .lse = room((size_t)heads * sizeof(float))};
}

static void free_call(const struct attend_one_cuda *call)
{
    const void *all[] = {call->q, call->keys, call->values, call->positions, call->parts, call->out, call->lse};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        gpu->free((void *)all[i]);
}

static void measure(const struct shape *shape, int64_t n, double peak)
{
    const struct rope_options options = {
        .dims = shape->dim, .base = 10000, .pairs = ROPE_HALVES, .max_positions = n + 1};
    struct rope *rope = rope_create(&options, &err);
    struct rope_cuda copy;
    must(rope && rope_cuda_create(&copy, rope, gpu, &err) == 0, err.text);
    const struct attend_one_cuda call = make_call(shape, n);
    double best = INFINITY;
    for (int i = 0; i < WARM_UP + REPEATS; i++) {
        cuda_must(cudaEventRecord(begun, NULL));
        must(attend_one_cuda(&copy, &call, NULL, &err) == 0, err.text);
        const double now = milliseconds();
        best = i < WARM_UP ? best : fmin(best, now);
    }
    const double bytes = (double)n * shape->kv_heads * (4.0 * shape->dim + sizeof(int64_t));
    const double rate = 1e-6 * bytes / best;
    printf("heads %2d/%-2d dim %3d keys %8lld: %8.3f ms, %6.0f GB/s, %3.0f%% of copying's\n",
           shape->kv_heads * shape->group, shape->kv_heads, shape->dim, (long long)n, best, rate,
           100 * rate / peak);
    fflush(stdout);
    free_call(&call);
    rope_cuda_free(&copy);
    rope_free(rope);
}

static int64_t parse(int argc, char **argv)
{
    const struct option names[] = {{"keys", required_argument, NULL, 'k'}, {0}};
    int64_t keys = 1 << 20;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;)
        keys = c == 'k' ? atoll(optarg) : 0;
    return keys;
}

int main(int argc, char **argv)
{
    const int64_t keys = parse(argc, argv);
    must(keys > 0, "usage: bench_attend_one_cuda [--keys N]");
    must((gpu = device_cuda(0, &err)) != NULL, err.text);
    cuda_must(cudaEventCreateWithFlags(&begun, cudaEventDefault));
    cuda_must(cudaEventCreateWithFlags(&over, cudaEventDefault));
    const double peak = copied_rate();
    printf("copying within the card's memory: %.0f GB/s\n", peak);
    for (int i = 0; i < N_SHAPES; i++)
        measure(&shapes[i], keys, peak);
    return 0;
}
