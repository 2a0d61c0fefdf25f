/* How fast the linear layers of a model are: GFLOP/s, and the share of the peak that the same cores reach.
 *
 *     bench_linear [threads ...]        (default: 1, and all cores)
 *
 * The matrices are those of SmolLM2-135M; work items are tiles of LINEAR_TILE_ROWS rows, as in prefill. The peak
 * is probed beside every figure on one core and multiplied by the threads. "all" is the whole network of 30
 * layers without its head, packed: matrices do not stay in the cache from one tile to the next.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/device.h"
#include "base/pool.h"
#include "bench/peak.h"
#include "model/linear.h"

enum { ROWS = 4 * LINEAR_TILE_ROWS, LAYERS = 30, PER_LAYER = 4, REPEATS = 3 };

struct matrix {
    const char *name;
    int64_t n_in, n_out;
};

/* The first PER_LAYER are a layer. */
static const struct matrix matrices[] = {
    {"qkv", 576, 960}, {"out", 576, 576}, {"gate|up", 576, 3072}, {"down", 1536, 576}, {"head", 576, 49152},
};
enum { MATRICES = sizeof matrices / sizeof *matrices, WIDEST_IN = 1536, WIDEST_OUT = 49152 };

static _Noreturn void die(const struct error *err)
{
    fprintf(stderr, "bench_linear: %s\n", err->text);
    exit(err->code);
}

static void *alloc_or_die(size_t bytes, const char *what)
{
    struct error err;
    void *memory = device_cpu()->alloc(bytes, what, &err);
    if (!memory)
        die(&err);
    return memory;
}

struct run {
    struct linear *const *linears;
    int64_t n_linears;
    const char *x;  /* [ROWS][n_in], of the widest */
    float **y;      /* [threads] of a tile */
    void **scratch; /* [threads] */
    size_t x_row;
};

/* A tile through all linears of the run. */
static void work(void *context, int64_t item, int thread)
{
    const struct run *run = context;
    struct error err;
    const struct linear_rows rows = {run->x + (size_t)item * LINEAR_TILE_ROWS * run->x_row, run->y[thread],
                                     LINEAR_TILE_ROWS};
    for (int64_t i = 0; i < run->n_linears; i++)
        if (linear_apply(run->linears[i], &rows, run->scratch[thread], &err) != 0)
            die(&err);
}

/* Seconds for ROWS rows; the best of some runs. */
static double measure(struct run *run, struct pool *pool)
{
    double best = 0;
    for (int i = 0; i <= REPEATS; i++) {
        double start = clock_seconds();
        pool_run(pool, &(struct pool_job){.n_items = ROWS / LINEAR_TILE_ROWS, .work = work, .context = run});
        double seconds = clock_seconds() - start;
        if (i > 0 && (best == 0 || seconds < best)) /* the first run warms up */
            best = seconds;
    }
    return best;
}

static struct linear *make(const struct matrix *matrix, enum dtype dtype)
{
    struct error err;
    const struct linear_shape shape = {matrix->n_in, matrix->n_out, dtype, NULL};
    size_t bytes;
    if (linear_packed_bytes(&shape, &bytes, &err) != 0)
        die(&err);
    struct linear *linear = linear_attach(&shape, alloc_or_die(bytes, "a packed matrix"), &err);
    if (!linear)
        die(&err);
    const size_t weight_bytes = (size_t)(matrix->n_in * matrix->n_out) * sizeof(float);
    float *weights = alloc_or_die(weight_bytes, "a matrix");
    for (int64_t i = 0; i < matrix->n_in * matrix->n_out; i++)
        weights[i] = (float)(i * 7 % 127 - 63) / 256;
    const struct tensor tensor = {.name = matrix->name,
                                  .type = TENSOR_F32,
                                  .n_dims = 2,
                                  .dims = {matrix->n_in, matrix->n_out, 1, 1},
                                  .data = weights,
                                  .bytes = weight_bytes};
    const struct tensor *const parts[] = {&tensor};
    if (linear_pack(linear, parts, 1, &err) != 0)
        die(&err);
    free(weights);
    return linear;
}

static void report(const char *name, double flops, double seconds, enum dtype dtype, int threads)
{
    double gflops = 1e-9 * flops / seconds, peak = threads * peak_of_core(dtype);
    printf("%-5s %2d threads  %-8s %8.1f GFLOP/s  %5.1f%% of %.0f\n", dtype_name(dtype), threads, name, gflops,
           100 * gflops / peak, peak);
    fflush(stdout);
}

static void bench(enum dtype dtype, struct linear *const linears[], struct pool *pool)
{
    const int threads = pool_threads(pool);
    float **y = alloc_or_die((size_t)threads * sizeof *y, "pointers");
    void **scratch = alloc_or_die((size_t)threads * sizeof *scratch, "pointers");
    char *x = alloc_or_die((size_t)ROWS * WIDEST_IN * dtype_size(dtype), "x");
    for (int i = 0; i < threads; i++) {
        y[i] = alloc_or_die((size_t)LINEAR_TILE_ROWS * WIDEST_OUT * sizeof(float), "y");
        scratch[i] = alloc_or_die(linear_scratch_bytes(linears[MATRICES - 1]), "scratch");
    }
    struct run run = {.x = x, .y = y, .scratch = scratch, .n_linears = 1};
    for (int m = 0; m < MATRICES; m++) {
        run.linears = &linears[m];
        run.x_row = (size_t)matrices[m].n_in * dtype_size(dtype);
        report(matrices[m].name, 2.0 * ROWS * (double)(matrices[m].n_in * matrices[m].n_out), measure(&run, pool),
               dtype, threads);
    }
    double flops = 0;
    for (int m = 0; m < PER_LAYER; m++)
        flops += 2.0 * ROWS * LAYERS * (double)(matrices[m].n_in * matrices[m].n_out);
    run.linears = linears + MATRICES;
    run.n_linears = (int64_t)LAYERS * PER_LAYER;
    report("all", flops, measure(&run, pool), dtype, threads);
    for (int i = 0; i < threads; i++)
        free(y[i]), free(scratch[i]);
    free(x), free(y), free(scratch);
}

static void bench_dtype(enum dtype dtype, int n_counts, const int *counts)
{
    if (peak_of_core(dtype) == 0) {
        printf("%s: not on this CPU\n", dtype_name(dtype));
        return;
    }
    /* one of each, then the layers; they live until the program ends */
    struct linear *linears[MATRICES + LAYERS * PER_LAYER];
    double start = clock_seconds();
    for (int i = 0; i < MATRICES + LAYERS * PER_LAYER; i++)
        linears[i] = make(&matrices[i < MATRICES ? i : (i - MATRICES) % PER_LAYER], dtype);
    printf("%s: made and packed in %.2f s\n", dtype_name(dtype), clock_seconds() - start);
    for (int i = 0; i < n_counts; i++) {
        struct error err;
        struct pool *pool = pool_create(counts[i], &err);
        if (!pool)
            die(&err);
        bench(dtype, linears, pool);
        pool_free(pool);
    }
}

int main(int argc, char **argv)
{
    int counts[16] = {1, cpu_cores()}, n_counts = 2;
    if (argc > 1)
        for (n_counts = 0; n_counts < 16 && n_counts < argc - 1; n_counts++)
            if ((counts[n_counts] = atoi(argv[n_counts + 1])) < 1) {
                fprintf(stderr, "usage: bench_linear [threads ...]\n");
                return ERROR_USAGE;
            }
    char cpu[128];
    cpu_model_name(cpu, sizeof cpu);
    printf("%s, %d cores, tiles of %d rows\n", cpu, cpu_cores(), LINEAR_TILE_ROWS);
    bench_dtype(DTYPE_F32, n_counts, counts);
    bench_dtype(DTYPE_BF16, n_counts, counts);
    return 0;
}
