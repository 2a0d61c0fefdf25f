/* The compressive policy against its definition, dense and in fp64, on 1 to 4 ranks: several tokens that left the
 * near part are one slot, the mean, the largest or a convolution of their raw keys and values, at its index; one
 * token to a slot is full attention. The authors published no code; the package that is held against in
 * test_published.c has only the convolution. */
#include "tests/mpi/bounded_bed.h"

/* The i-th thing that the query sees: `count` tokens from `first` on, made one. */
struct item {
    int64_t first, count;
};

/* Weights of the convolutions. */
static float weight_of(enum kind kind, int out, int64_t token, int in)
{
    return number(kind, 1000 + out, (int)token * 16 + in) / 8;
}

static void convolved(const struct bed *bed, enum kind kind, struct item item, int kv_head, double *out)
{
    const int dim = bed->shape.dim;
    double row[ATTN_MAX_DIM];
    for (int e = 0; e < dim; e++)
        out[e] = (double)number(kind, 999, e);
    for (int64_t t = 0; t < item.count; t++) {
        row_of(&bed->shape, kind, item.first + t, kv_head, row);
        for (int e = 0; e < dim; e++)
            for (int i = 0; i < dim; i++)
                out[e] += (double)weight_of(kind, e, t, i) * row[i];
    }
}

/* Element by element what the policy makes of an item's raw rows. */
static void pooled(const struct bed *bed, enum kind kind, struct item item, int kv_head, double *out)
{
    double row[ATTN_MAX_DIM];
    if (bed->spec.pool == POOL_CONVOLUTION && item.count > 1) {
        convolved(bed, kind, item, kv_head, out);
        return;
    }
    row_of(&bed->shape, kind, item.first, kv_head, out);
    for (int64_t t = 1; t < item.count; t++) {
        row_of(&bed->shape, kind, item.first + t, kv_head, row);
        for (int e = 0; e < bed->shape.dim; e++)
            out[e] = bed->spec.pool == POOL_MEAN ? out[e] + row[e] : fmax(out[e], row[e]);
    }
    for (int e = 0; e < bed->shape.dim && bed->spec.pool == POOL_MEAN; e++)
        out[e] /= (double)item.count;
}

/* What the query at `position` sees, in order; returns how many. */
static int64_t list_items(const struct bed *bed, int64_t position, struct item *items)
{
    const struct policy_spec *spec = &bed->spec;
    const int64_t near = policy_near_first(spec, position, bed_segment_first(bed, position));
    int64_t n = 0;
    for (int64_t slot = i64_max(0, near / spec->rate - spec->slots); slot < near / spec->rate; slot++)
        items[n++] = (struct item){slot * spec->rate, spec->rate};
    for (int64_t t = near; t <= position; t++)
        items[n++] = (struct item){t, 1};
    return n;
}

static void define(const struct bed *bed, int64_t position, int head, double *out)
{
    static struct item items[BED_MOST_TOKENS];
    static double scores[BED_MOST_TOKENS];
    const struct shape *shape = &bed->shape;
    const int kv_head = head / (shape->heads / shape->kv_heads);
    const int64_t n = list_items(bed, position, items);
    double q[ATTN_MAX_DIM], row[ATTN_MAX_DIM], sum = 0, largest = -INFINITY;
    row_of(shape, QUERY, position, head, q);
    rotate(shape, n - 1, q);
    for (int64_t i = 0; i < n; i++) {
        pooled(bed, KEY, items[i], kv_head, row);
        rotate(shape, i, row);
        scores[i] = dot(q, row, shape->dim) * (double)shape->scale;
        if (bed->spec.weigh)
            scores[i] += log((double)items[i].count);
        largest = fmax(largest, scores[i]);
    }
    memset(out, 0, (size_t)shape->dim * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        const double weight = exp(scores[i] - largest);
        sum += weight;
        pooled(bed, VALUE, items[i], kv_head, row);
        for (int e = 0; e < shape->dim; e++)
            out[e] += weight * row[e];
    }
    for (int e = 0; e < shape->dim; e++)
        out[e] /= sum;
}

static int64_t forgotten(const struct bed *bed, int64_t position)
{
    static struct item items[BED_MOST_TOKENS];
    const int64_t n = list_items(bed, position, items);
    int64_t reached = 0;
    for (int64_t i = 0; i < n - 1; i++)
        reached += items[i].count;
    return position - reached;
}

/* Everything, at its own position. */
static void define_full(const struct bed *bed, int64_t position, int head, double *out)
{
    static double scores[BED_MOST_TOKENS];
    const struct shape *shape = &bed->shape;
    const int kv_head = head / (shape->heads / shape->kv_heads);
    double q[ATTN_MAX_DIM], k[ATTN_MAX_DIM];
    row_of(shape, QUERY, position, head, q);
    rotate(shape, position, q);
    for (int64_t t = 0; t <= position; t++) {
        row_of(shape, KEY, t, kv_head, k);
        rotate(shape, t, k);
        scores[t] = dot(q, k, shape->dim) * (double)shape->scale;
    }
    weigh(shape, kv_head, scores, position + 1, out);
}

static void check(const char *policy, int64_t n, int64_t segment,
                  void (*definition)(const struct bed *, int64_t, int, double *))
{
    struct bed bed = {.shape = {4, 2, 16, 16, 10000.0, DTYPE_F32, ROPE_HALVES, 0.6f, 0, 2e-5},
                      .segment = segment,
                      .define = definition,
                      .forgotten = forgotten};
    bed_check(&bed, policy, n);
}

static void means_stand_for_several_tokens(void **state)
{
    (void)state;
    check("compressive:window=60,rate=4,slots=1000", 400, 128, define);
    check("compressive:window=33,rate=7,slots=1000,weigh=1", 300, 77, define);
}

static void the_largest_stand_for_several_tokens(void **state)
{
    (void)state;
    check("compressive:window=50,rate=3,slots=1000,form=max", 300, 128, define);
}

static void a_convolution_stands_for_several_tokens(void **state)
{
    enum { DIM = 16, RATE = 3 };
    static float weights[2][DIM * RATE * DIM], biases[2][DIM];
    struct convolutions convolutions = {{RATE, DIM, weights[0], biases[0]}, {RATE, DIM, weights[1], biases[1]}};
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int e = 0; e < DIM; e++) {
            const enum kind kind = i == 0 ? KEY : VALUE;
            biases[i][e] = number(kind, 999, e);
            for (int j = 0; j < RATE * DIM; j++)
                weights[i][e * RATE * DIM + j] = weight_of(kind, e, j / DIM, j % DIM);
        }
    struct bed bed = {.shape = {4, 2, DIM, DIM, 10000.0, DTYPE_F32, ROPE_HALVES, 0.6f, 0, 2e-5},
                      .segment = 128,
                      .convolutions = &convolutions,
                      .define = define};
    bed_check(&bed, "compressive:window=50,rate=3,slots=1000,form=conv", 300);
    bed_check(&bed, "compressive:window=50,rate=3,slots=20,form=conv", 300);
}

static void the_oldest_slots_leave(void **state)
{
    (void)state;
    check("compressive:window=40,rate=2,slots=31", 400, 64, define);
    check("compressive:window=1,rate=5,slots=1,weigh=1,form=max", 200, 128, define);
}

static void one_token_to_a_slot_is_full_attention(void **state)
{
    (void)state;
    check("compressive:window=50,rate=1,slots=1000", 350, 128, define_full);
    check("compressive:window=50,rate=1,slots=1000,form=max,weigh=1", 200, 64, define_full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(means_stand_for_several_tokens),          mpi_unit_test(the_largest_stand_for_several_tokens),
        mpi_unit_test(a_convolution_stands_for_several_tokens), mpi_unit_test(the_oldest_slots_leave),
        mpi_unit_test(one_token_to_a_slot_is_full_attention),
    };
    return mpi_run_tests(tests);
}
