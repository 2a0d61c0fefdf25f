/* bench_attention [--dim D] [--keys N] [--threads T]: how fast each attention kernel that this CPU can run is,
 * in GFLOP/s of all threads (4 * dim for each query row and key that it sees), and as a share of the measured
 * peak of the instructions it uses and of the fastest there are.
 *
 * full: every row sees all N keys (rounded up to a multiple of 192). causal: a prefill of N tokens from nothing.
 * Packing is not counted. The best of several short repeats, the peak measured between them. Where other
 * programs share the cores, the clock says little; so the time that the threads spent on a core is taken, too,
 * and the shares are of that rate.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "attention/kernel.h"
#include "base/cpu.h"
#include "base/pool.h"
#include "bench/peak.h"

enum { REPEATS = 9, ITEMS_PER_THREAD = 2 };

struct options {
    int dim, threads;
    int64_t keys;
};

struct bench {
    const struct attn_kernel *kernel;
    struct options options;
    bool causal;
    int64_t items;
    void *q; /* [ATTN_QUERY_ROWS][dim], the same for every item */
    void *packed;
    float **states;  /* [threads]: o, m, l */
    void **scratch;  /* [threads] */
    double *seconds; /* [threads]: on a core, in this repeat */
};

struct rates {
    double clock, core; /* GFLOP/s of all threads by wall clock, and by time on a core */
};

static double seconds_now(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *must_alloc(size_t bytes)
{
    void *memory = aligned_alloc(ATTN_ALIGN, (size_t)i64_round_up((int64_t)bytes, ATTN_ALIGN));
    if (!memory) {
        fprintf(stderr, "bench_attention: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

static void fill(float *out, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        out[i] = (float)(seed >> 8) * 0x1p-23f - 1.0f;
    }
}

static void to_dtype(const float *from, void *to, size_t n, enum dtype dtype)
{
    if (dtype == DTYPE_F32)
        memcpy(to, from, n * sizeof *from);
    else
        for (size_t i = 0; i < n; i++)
            ((bf16 *)to)[i] = bf16_from_f32(from[i]);
}

static void work(void *context, int64_t item, int thread)
{
    const struct bench *bench = context;
    double start = seconds_now(CLOCK_THREAD_CPUTIME_ID);
    struct attn_span spans[ATTN_QUERY_ROWS];
    for (int r = 0; r < ATTN_QUERY_ROWS; r++)
        spans[r] = (struct attn_span){0, bench->causal ? item * ATTN_QUERY_ROWS + r + 1 : bench->options.keys};
    float *o = bench->states[thread], *m = o + (size_t)ATTN_QUERY_ROWS * (size_t)bench->options.dim;
    struct attn_state state = {o, m, m + ATTN_QUERY_ROWS};
    struct attn_tile tile = {bench->q, spans, ATTN_QUERY_ROWS, bench->options.dim};
    attn_state_reset(&state, ATTN_QUERY_ROWS, bench->options.dim);
    attn_attend(bench->kernel, &tile, bench->packed, &state, bench->scratch[thread]);
    attn_state_finish(&state, ATTN_QUERY_ROWS, bench->options.dim, NULL);
    bench->seconds[thread] += seconds_now(CLOCK_THREAD_CPUTIME_ID) - start;
}

static void prepare(struct bench *bench)
{
    const struct attn_kernel *kernel = bench->kernel;
    size_t dim = (size_t)bench->options.dim, keys = (size_t)bench->options.keys;
    float *numbers = must_alloc(ATTN_KEY_TILE * dim * sizeof *numbers);
    void *typed = must_alloc(ATTN_QUERY_ROWS * dim * sizeof(float));
    bench->packed = must_alloc(keys / ATTN_KEY_TILE * kernel->tile_bytes((int)dim));
    for (size_t t = 0; t < keys / ATTN_KEY_TILE; t++) {
        fill(numbers, ATTN_KEY_TILE * dim, (uint32_t)t);
        to_dtype(numbers, typed, ATTN_KEY_TILE * dim, kernel->dtype);
        kernel->pack((char *)bench->packed + t * kernel->tile_bytes((int)dim), numbers, typed, ATTN_KEY_TILE,
                     (int)dim);
    }
    for (size_t first = 0; first < ATTN_QUERY_ROWS; first += ATTN_KEY_TILE) {
        fill(numbers, ATTN_KEY_TILE * dim, 12345u + (uint32_t)first);
        to_dtype(numbers, (char *)typed + first * dim * dtype_size(kernel->dtype), ATTN_KEY_TILE * dim,
                 kernel->dtype);
    }
    bench->q = typed;
    free(numbers);
    bench->states = must_alloc((size_t)bench->options.threads * sizeof *bench->states);
    bench->seconds = must_alloc((size_t)bench->options.threads * sizeof *bench->seconds);
    bench->scratch = must_alloc((size_t)bench->options.threads * sizeof *bench->scratch);
    for (int t = 0; t < bench->options.threads; t++) {
        bench->states[t] = must_alloc(ATTN_QUERY_ROWS * (dim + 2) * sizeof(float));
        bench->scratch[t] = must_alloc(kernel->scratch_bytes((int)dim));
    }
}

static void release(struct bench *bench)
{
    for (int t = 0; t < bench->options.threads; t++) {
        free(bench->states[t]);
        free(bench->scratch[t]);
    }
    free(bench->states);
    free(bench->seconds);
    free(bench->scratch);
    free(bench->packed);
    free(bench->q);
}

enum instructions { AVX512_FMA, AVX512_DOT, AVX2_FMA, PLAIN, N_INSTRUCTIONS };

struct peaks {
    double of[N_INSTRUCTIONS]; /* GFLOP/s of one core, 0 where not known */
};

static enum instructions instructions_of(const struct attn_kernel *kernel)
{
    if (strcmp(kernel->name, "avx512-bf16") == 0)
        return AVX512_DOT;
    if (strncmp(kernel->name, "avx512", 6) == 0)
        return AVX512_FMA;
    return strncmp(kernel->name, "avx2", 4) == 0 ? AVX2_FMA : PLAIN;
}

static void probe(struct peaks *peaks)
{
    const struct cpu_features features = cpu_features();
    if (features.avx512)
        peaks->of[AVX512_FMA] = fmax(peaks->of[AVX512_FMA], peak_of_core(DTYPE_F32));
    peaks->of[AVX512_DOT] = fmax(peaks->of[AVX512_DOT], peak_of_core(DTYPE_BF16));
    peaks->of[AVX2_FMA] = fmax(peaks->of[AVX2_FMA], peak_of_avx2());
}

static struct rates measure(struct bench *bench, struct pool *pool, struct peaks *peaks)
{
    struct rates best = {0};
    double seen = (double)bench->options.keys * ATTN_QUERY_ROWS * (double)bench->items;
    if (bench->causal)
        seen = (double)bench->options.keys * ((double)bench->options.keys + 1) / 2;
    double gflop = 4e-9 * bench->options.dim * seen;
    int threads = bench->options.threads;
    for (int i = 0; i < REPEATS; i++) {
        probe(peaks);
        memset(bench->seconds, 0, (size_t)threads * sizeof *bench->seconds);
        double start = seconds_now(CLOCK_MONOTONIC), on_core = 0;
        pool_run(pool, &(struct pool_job){.n_items = bench->items, .work = work, .context = bench});
        best.clock = fmax(best.clock, gflop / (seconds_now(CLOCK_MONOTONIC) - start));
        for (int t = 0; t < threads; t++)
            on_core += bench->seconds[t];
        best.core = fmax(best.core, threads * gflop / on_core);
    }
    return best;
}

static void report(const struct bench *bench, struct rates got, const struct peaks *peaks)
{
    double best = 0, own = bench->options.threads * peaks->of[instructions_of(bench->kernel)];
    for (int i = 0; i < N_INSTRUCTIONS; i++)
        best = fmax(best, bench->options.threads * peaks->of[i]);
    printf("%-16s %-6s dim %3d keys %6lld: %7.1f GFLOP/s by the clock, %7.1f on the core", bench->kernel->name,
           bench->causal ? "causal" : "full", bench->options.dim, (long long)bench->options.keys, got.clock,
           got.core);
    if (own > 0)
        printf(", %5.1f%% of its peak %6.1f", 100 * got.core / own, own);
    if (best > 0)
        printf(", %5.1f%% of the best %6.1f", 100 * got.core / best, best);
    printf("\n");
    fflush(stdout);
}

static void run_kernel(const struct attn_kernel *kernel, struct options options, struct pool *pool)
{
    struct bench bench = {.kernel = kernel, .options = options};
    struct peaks peaks = {0};
    prepare(&bench);
    for (int causal = 0; causal <= 1; causal++) {
        bench.causal = causal;
        bench.items = causal ? options.keys / ATTN_QUERY_ROWS : (int64_t)options.threads * ITEMS_PER_THREAD;
        struct rates got = measure(&bench, pool, &peaks);
        report(&bench, got, &peaks);
    }
    release(&bench);
}

static int parse(int argc, char **argv, struct options *options)
{
    const struct option names[] = {{"dim", required_argument, NULL, 'd'},
                                   {"keys", required_argument, NULL, 'k'},
                                   {"threads", required_argument, NULL, 't'},
                                   {0}};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (c == '?')
            return -1;
        if (c == 'd')
            options->dim = atoi(optarg);
        else if (c == 't')
            options->threads = atoi(optarg);
        else
            options->keys = i64_round_up(atoll(optarg), ATTN_QUERY_ROWS);
    }
    return options->dim % 16 || options->dim < 16 || options->dim > ATTN_MAX_DIM || options->keys < 1 ||
                   options->threads < 1
               ? -1
               : 0;
}

int main(int argc, char **argv)
{
    struct options options = {.dim = 64, .keys = 16512, .threads = cpu_cores()};
    struct error err;
    if (parse(argc, argv, &options) < 0) {
        fprintf(stderr, "usage: bench_attention [--dim D] [--keys N] [--threads T]\n");
        return 2;
    }
    struct pool *pool = pool_create(options.threads, &err);
    if (!pool) {
        fprintf(stderr, "bench_attention: %s\n", err.text);
        return 1;
    }
    int n;
    const struct attn_kernel *const *kernels = attn_kernels(&n);
    for (int i = 0; i < n; i++)
        if (kernels[i]->supported())
            run_kernel(kernels[i], options, pool);
    pool_free(pool);
    return 0;
}
