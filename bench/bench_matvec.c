/* How fast one core multiplies rows of each type by a vector, beside how fast it can read memory at all.
 *
 *     bench_matvec [SECONDS_PER_TYPE]      (0.3 unless told)
 *
 * The matrix is larger than the caches a core has to itself, its bytes random with finite scales; rows have 576
 * elements in blocks of 32 (SmolLM2-135M's width) and 1024 in blocks of 256. The passes are timed in slices of 2
 * MiB and the rate is that of the fastest tenth, so that a neighbour on the machine does not count. "of read" is
 * the share of the bandwidth of plain reading, measured the same way in the same run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/num.h"
#include "model/matvec.h"

enum { MATRIX_BYTES = 96 << 20, SLICE_BYTES = 2 << 20, N_SLICES = MATRIX_BYTES / SLICE_BYTES, MAX_TIMES = 1 << 16 };

struct job {
    const struct matvec_kernel *kernel; /* NULL: only read */
    enum tensor_type type;
    int64_t n; /* elements of a row */
    const uint8_t *bytes;
    const float *x;
    volatile float sink; /* keeps the work from being dropped */
};

static void read_slice(struct job *job, const uint8_t *slice)
{
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < SLICE_BYTES; i += sizeof sums) {
        uint64_t words[8];
        matvec_fetch_ahead(slice + i, sizeof words);
        memcpy(words, slice + i, sizeof words);
        for (int j = 0; j < 8; j++)
            sums[j] += words[j];
    }
    for (int j = 0; j < 8; j++)
        job->sink = job->sink + (float)sums[j];
}

static void multiply_slice(struct job *job, const uint8_t *slice)
{
    const size_t row_bytes = tensor_row_bytes(job->type, job->n);
    float sum = 0;
    for (size_t at = 0; at + row_bytes <= SLICE_BYTES; at += row_bytes)
        sum += matvec_row(job->kernel, job->type, slice + at, job->x, job->n);
    job->sink = job->sink + sum;
}

static int compare_times(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Bytes a second of one core, of the fastest tenth of the slices that fit in `seconds`. */
static double measure(struct job *job, double seconds)
{
    static double times[MAX_TIMES];
    double end = clock_seconds() + seconds;
    int n = 0;
    for (; n < 10 || (n < MAX_TIMES && clock_seconds() < end); n++) {
        const uint8_t *slice = job->bytes + (size_t)(n % N_SLICES) * SLICE_BYTES;
        double start = clock_seconds();
        if (job->kernel)
            multiply_slice(job, slice);
        else
            read_slice(job, slice);
        times[n] = clock_seconds() - start;
    }
    qsort(times, (size_t)n, sizeof *times, compare_times);
    return SLICE_BYTES / times[n / 10];
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

static void report(struct job *job, double bandwidth, double seconds)
{
    for (int type = 0; type < TENSOR_TYPE_COUNT; type++) {
        job->type = (enum tensor_type)type;
        job->n = tensor_block_elements(job->type) == 256 ? 1024 : 576;
        double bytes = measure(job, seconds);
        double weights = bytes / (double)tensor_row_bytes(job->type, job->n) * (double)job->n;
        printf("%-7s %-5s %7.2f Gweights/s %7.2f GB/s  %3.0f%% of read\n", job->kernel->name,
               tensor_type_name(job->type), weights * 1e-9, bytes * 1e-9, 100 * bytes / bandwidth);
    }
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0.3;
    uint8_t *bytes = aligned_alloc(64, MATRIX_BYTES);
    float x[1024];
    if (!bytes)
        return 1;
    fill(bytes);
    for (int i = 0; i < 1024; i++)
        x[i] = (float)(i % 17 - 8);
    struct job job = {.bytes = bytes, .x = x};
    double bandwidth = measure(&job, seconds);
    printf("read    %.2f GB/s\n", bandwidth * 1e-9);
    int n_kernels;
    const struct matvec_kernel *const *kernels = matvec_kernels(&n_kernels);
    for (int i = 0; i < n_kernels; i++) {
        job.kernel = kernels[i];
        if (kernels[i]->supported())
            report(&job, bandwidth, seconds);
    }
    free(bytes);
    return 0;
}
