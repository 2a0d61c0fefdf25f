/* How fast one core multiplies rows of each type by a vector, beside how fast it can read memory at all.
 *
 *     bench_matvec [SECONDS_PER_TYPE]      (0.3 unless told)
 *
 * Each matrix is larger than the caches a core has to itself, its bytes random with finite scales; the vector has
 * 576 elements for blocks of 32 (SmolLM2-135M's width) and 1024 for blocks of 256. "of read" is the share of the
 * bandwidth of plain reading, measured in the same run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/num.h"
#include "model/matvec.h"

enum { MATRIX_BYTES = 96 << 20 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Bytes a second of reading `bytes` bytes and adding them up, the best of the passes that fit in `seconds`. */
static double read_bandwidth(const uint8_t *bytes, double seconds)
{
    double best = 0, end = now() + seconds;
    volatile uint64_t sink = 0;
    while (now() < end) {
        uint64_t sums[8] = {0};
        double start = now();
        for (size_t i = 0; i < MATRIX_BYTES; i += sizeof sums) {
            uint64_t words[8];
            memcpy(words, bytes + i, sizeof words);
            for (int j = 0; j < 8; j++)
                sums[j] += words[j];
        }
        double rate = MATRIX_BYTES / (now() - start);
        for (int j = 0; j < 8; j++)
            sink = sink + sums[j];
        best = rate > best ? rate : best;
    }
    return best;
}

/* Random bytes would hold NaN scales: make every half a small number, which is a number in every type. */
static void fill(uint8_t *bytes)
{
    uint32_t state = 1;
    for (size_t i = 0; i < MATRIX_BYTES; i += 2) {
        state = state * 1664525u + 1013904223u;
        uint16_t half = (uint16_t)((state >> 16 & 0x83ffu) | 0x2000u);
        memcpy(bytes + i, &half, sizeof half);
    }
}

struct job {
    const struct matvec_kernel *kernel;
    enum tensor_type type;
    const uint8_t *bytes;
    const float *x;
    float *y;
};

/* Weights a second, the best of the passes that fit in `seconds`. */
static double measure(const struct job *job, int64_t n, double seconds)
{
    size_t row_bytes = tensor_row_bytes(job->type, n);
    int64_t rows = (int64_t)(MATRIX_BYTES / row_bytes);
    double best = 0, end = now() + seconds;
    do {
        double start = now();
        for (int64_t row = 0; row < rows; row++)
            job->y[row] = matvec_row(job->kernel, job->type, job->bytes + (size_t)row * row_bytes, job->x, n);
        double rate = (double)(rows * n) / (now() - start);
        best = rate > best ? rate : best;
    } while (now() < end);
    return best;
}

static void report(struct job *job, double bandwidth, double seconds)
{
    for (int type = 0; type < TENSOR_TYPE_COUNT; type++) {
        job->type = (enum tensor_type)type;
        int64_t n = tensor_block_elements(job->type) == 256 ? 1024 : 576;
        double weights = measure(job, n, seconds);
        double bytes = weights / (double)n * (double)tensor_row_bytes(job->type, n);
        printf("%-7s %-5s %7.2f Gweights/s %7.2f GB/s  %3.0f%% of read\n", job->kernel->name,
               tensor_type_name(job->type), weights * 1e-9, bytes * 1e-9, 100 * bytes / bandwidth);
    }
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.3;
    uint8_t *bytes = aligned_alloc(64, MATRIX_BYTES);
    float *y = malloc(MATRIX_BYTES / 34 * sizeof *y), x[1024];
    if (!bytes || !y)
        return 1;
    fill(bytes);
    for (int i = 0; i < 1024; i++)
        x[i] = (float)(i % 17 - 8);
    double bandwidth = read_bandwidth(bytes, seconds);
    printf("read    %.2f GB/s\n", bandwidth * 1e-9);
    int n_kernels;
    const struct matvec_kernel *const *kernels = matvec_kernels(&n_kernels);
    for (int i = 0; i < n_kernels; i++) {
        struct job job = {.kernel = kernels[i], .bytes = bytes, .x = x, .y = y};
        if (kernels[i]->supported())
            report(&job, bandwidth, seconds);
    }
    free(bytes);
    free(y);
    return 0;
}
