#include "attention/position.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/num.h"

/* Positions are split into p = high * LOW_ROWS + low: one table row for each. */
enum { LOW_ROWS = ROPE_LEAST, MAX_DIMS = 4096 };

struct rope {
    int half; /* pairs */
    enum rope_pairs pairs;
    struct position_method method;
    struct position_base base;
    int64_t max_positions, high_rows;
    int64_t length;   /* of the text that the tables are for, as far as the method looks at it */
    int64_t revision; /* how often they have been filled */
    double *thetas;   /* [half] */
    float *table;     /* [LOW_ROWS + high rows][cosine, sine][half], the high rows behind the low ones */
};

static void fill_row(const struct rope *rope, float *row, int64_t position, double magnitude)
{
    for (int i = 0; i < rope->half; i++) {
        double angle = (double)position * rope->thetas[i];
        row[i] = (float)(magnitude * cos(angle));
        row[rope->half + i] = (float)(magnitude * sin(angle));
    }
}

/* Every angle is a product of a low and a high row: the attention factor is in the high ones alone. */
static void fill_tables(struct rope *rope)
{
    const size_t row = 2 * (size_t)rope->half;
    const double factor = position_method_attention_factor(&rope->method);
    position_method_thetas(&rope->method, &rope->base, rope->length, rope->thetas);
    for (int64_t i = 0; i < LOW_ROWS; i++)
        fill_row(rope, rope->table + (size_t)i * row, i, 1);
    for (int64_t i = 0; i < rope->high_rows; i++)
        fill_row(rope, rope->table + (size_t)(LOW_ROWS + i) * row, i * LOW_ROWS, factor);
    rope->revision++;
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

size_t rope_bytes(const struct rope_options *options)
{
    const int64_t rows = LOW_ROWS + i64_ceil_div(options->max_positions, LOW_ROWS);
    return (size_t)rows * (size_t)options->dims * sizeof(float);
}

struct rope *rope_create(const struct rope_options *options, struct error *err)
{
    if (check_options(options, err) < 0 || position_method_check(&options->method, options->dims, err) < 0)
        return NULL;
    struct rope *rope = calloc(1, sizeof *rope);
    if (!rope || !(rope->table = malloc(rope_bytes(options))) ||
        !(rope->thetas = calloc((size_t)options->dims / 2, sizeof *rope->thetas))) {
        rope_free(rope);
        error_set(err, ERROR_RESOURCE, "positions: no memory for tables of %lld positions",
                  (long long)options->max_positions);
        return NULL;
    }
    rope->half = options->dims / 2;
    rope->pairs = options->pairs;
    rope->method = options->method;
    rope->base = (struct position_base){options->dims, options->base, options->divisors};
    rope->max_positions = i64_max(ROPE_LEAST, options->max_positions);
    rope->high_rows = i64_ceil_div(options->max_positions, LOW_ROWS);
    fill_tables(rope);
    return rope;
}

void rope_free(struct rope *rope)
{
    if (!rope)
        return;
    free(rope->thetas);
    free(rope->table);
    free(rope);
}

/* Lengths up to the trained one are the same to every method. LongRoPE tells only those beyond from the others. */
void rope_set_length(struct rope *rope, int64_t length)
{
    if (!position_method_follows(&rope->method))
        return;
    const int64_t trained = rope->method.trained;
    int64_t seen = length > trained ? length : 0;
    if (rope->method.kind == POSITION_LONGROPE && seen > 0)
        seen = trained + 1;
    if (seen == rope->length)
        return;
    rope->length = seen;
    fill_tables(rope);
}

int64_t rope_revision(const struct rope *rope)
{
    return rope->revision;
}

struct rope_tables rope_tables(const struct rope *rope)
{
    return (struct rope_tables){rope->table, LOW_ROWS + rope->high_rows, rope->half, rope->pairs};
}

/* (cos a + i sin a)(cos b + i sin b) = cos(a + b) + i sin(a + b) */
void rope_angles(const struct rope *rope, int64_t position, float *restrict cosines, float *restrict sines)
{
    size_t half = (size_t)rope->half;
    assert(position >= 0 && position < rope->max_positions);
    const float *low = rope->table + (size_t)(position % LOW_ROWS) * 2 * half;
    const float *high = rope->table + (size_t)(LOW_ROWS + position / LOW_ROWS) * 2 * half;
    for (size_t i = 0; i < half; i++) {
        cosines[i] = low[i] * high[i] - low[half + i] * high[half + i];
        sines[i] = low[i] * high[half + i] + low[half + i] * high[i];
    }
}

void rope_element_angles(const struct rope *rope, int64_t position, int dim, float *cosine, float *sine)
{
    const bool neighbours = rope->pairs == ROPE_NEIGHBOURS;
    const int stride = neighbours ? 2 : 1, partner = neighbours ? 1 : rope->half;
    rope_angles(rope, position, cosine, sine);
    for (int i = rope->half - 1; i >= 0; i--) { /* from the last on, as they are spread in place */
        cosine[i * stride] = cosine[i * stride + partner] = cosine[i];
        sine[i * stride] = sine[i * stride + partner] = sine[i];
    }
    for (int e = 2 * rope->half; e < dim; e++) {
        cosine[e] = 1;
        sine[e] = 0;
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
