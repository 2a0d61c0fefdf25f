#include "attention/position.h"

#include <math.h>
#include <stdlib.h>

#include "base/num.h"

/* Positions are split into p = high * LOW_ROWS + low: one table row for each. */
enum { LOW_ROWS = 1024, MAX_DIMS = 4096 };

struct rope {
    int half; /* pairs */
    enum rope_pairs pairs;
    float *table; /* [LOW_ROWS + high rows][cosine, sine][half], the high rows behind the low ones */
};

static void fill_row(float *row, const struct rope_options *options, int64_t position)
{
    int half = options->dims / 2;
    for (int i = 0; i < half; i++) {
        double theta = pow(options->base, -2.0 * i / options->dims);
        if (options->divisors)
            theta /= options->divisors[i];
        double angle = (double)position * theta;
        row[i] = (float)cos(angle);
        row[half + i] = (float)sin(angle);
    }
}

static int check_options(const struct rope_options *options, struct error *err)
{
    if (options->dims < 2 || options->dims > MAX_DIMS || options->dims % 2 != 0)
        return error_set(err, ERROR_INPUT, "positions: %d rotated dimensions (an even number up to %d is needed)",
                         options->dims, MAX_DIMS);
    if (!(options->base > 0) || !isfinite(options->base))
        return error_set(err, ERROR_INPUT, "positions: base %g (a positive number is needed)", options->base);
    if (options->max_positions < 1)
        return error_set(err, ERROR_INTERNAL, "positions: %lld positions", (long long)options->max_positions);
    for (int i = 0; options->divisors && i < options->dims / 2; i++)
        if (!(options->divisors[i] > 0) || !isfinite(options->divisors[i]))
            return error_set(err, ERROR_INPUT, "positions: divisor %d is %g (a positive number is needed)", i,
                             (double)options->divisors[i]);
    return 0;
}

struct rope *rope_create(const struct rope_options *options, struct error *err)
{
    if (check_options(options, err) < 0)
        return NULL;
    int64_t high_rows = i64_ceil_div(options->max_positions, LOW_ROWS);
    size_t row = (size_t)options->dims, elements, bytes;
    struct rope *rope = calloc(1, sizeof *rope);
    if (!rope || !size_mul((size_t)high_rows + LOW_ROWS, row, &elements) ||
        !size_mul(elements, sizeof *rope->table, &bytes) || !(rope->table = malloc(bytes))) {
        free(rope);
        error_set(err, ERROR_RESOURCE, "positions: no memory for tables of %lld positions",
                  (long long)options->max_positions);
        return NULL;
    }
    rope->half = options->dims / 2;
    rope->pairs = options->pairs;
    for (int64_t i = 0; i < LOW_ROWS; i++)
        fill_row(rope->table + (size_t)i * row, options, i);
    for (int64_t i = 0; i < high_rows; i++)
        fill_row(rope->table + (size_t)(LOW_ROWS + i) * row, options, i * LOW_ROWS);
    return rope;
}

void rope_free(struct rope *rope)
{
    if (!rope)
        return;
    free(rope->table);
    free(rope);
}

/* (cos a + i sin a)(cos b + i sin b) = cos(a + b) + i sin(a + b) */
void rope_angles(const struct rope *rope, int64_t position, float *restrict cosines, float *restrict sines)
{
    size_t half = (size_t)rope->half;
    const float *low = rope->table + (size_t)(position % LOW_ROWS) * 2 * half;
    const float *high = rope->table + (size_t)(LOW_ROWS + position / LOW_ROWS) * 2 * half;
    for (size_t i = 0; i < half; i++) {
        cosines[i] = low[i] * high[i] - low[half + i] * high[half + i];
        sines[i] = low[i] * high[half + i] + low[half + i] * high[i];
    }
}

static void rotate_neighbours(const float *cosines, const float *sines, const float *x, float *out, int half,
                              float scale)
{
    for (int i = 0; i < half; i++) {
        float a = x[2 * i] * scale, b = x[2 * i + 1] * scale;
        out[2 * i] = a * cosines[i] - b * sines[i];
        out[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
}

static void rotate_halves(const float *cosines, const float *sines, const float *x, float *out, int half,
                          float scale)
{
    for (int i = 0; i < half; i++) {
        float a = x[i] * scale, b = x[i + half] * scale;
        out[i] = a * cosines[i] - b * sines[i];
        out[i + half] = a * sines[i] + b * cosines[i];
    }
}

void rope_rotate(const struct rope *rope, const float *cosines, const float *sines, const float *x, float *out,
                 int dim, float scale)
{
    if (rope->pairs == ROPE_NEIGHBOURS)
        rotate_neighbours(cosines, sines, x, out, rope->half, scale);
    else
        rotate_halves(cosines, sines, x, out, rope->half, scale);
    for (int i = 2 * rope->half; i < dim; i++)
        out[i] = x[i] * scale;
}
