/* LongLLaMA's memory on 1 to 4 ranks, against its definition, dense and in fp64: the near part is the segment and
 * the window before it, at their places from its first token on; the last tokens before it are the memory, all at
 * the place of that first token. The authors' code, which has neither bound nor choice, is in test_published.c. */
#include "tests/mpi/bounded_bed.h"

/* All but the `top` largest of scores [n] become -inf; for top 0 none. */
static void keep_nearest(int64_t top, double *scores, int64_t n)
{
    static bool stays[BED_MOST_TOKENS];
    memset(stays, 0, sizeof stays);
    for (int64_t i = 0; i < top; i++) {
        int64_t best = -1;
        for (int64_t t = 0; t < n; t++)
            if (!stays[t] && (best < 0 || scores[t] > scores[best]))
                best = t;
        if (best >= 0)
            stays[best] = true;
    }
    for (int64_t t = 0; t < n && top > 0; t++)
        scores[t] = stays[t] ? scores[t] : -INFINITY;
}

static void define(const struct bed *bed, int64_t position, int head, double *out)
{
    static double scores[BED_MOST_TOKENS];
    const struct shape *shape = &bed->shape;
    const int kv_head = head / (shape->heads / shape->kv_heads);
    const int64_t near = i64_max(0, bed_segment_first(bed, position) - bed->spec.window);
    double q[ATTN_MAX_DIM], k[ATTN_MAX_DIM];
    row_of(shape, QUERY, position, head, q);
    rotate(shape, position - near, q);
    for (int64_t t = 0; t <= position; t++) {
        row_of(shape, KEY, t, kv_head, k);
        rotate(shape, i64_max(0, t - near), k);
        scores[t] = t < near - bed->spec.slots ? -INFINITY : dot(q, k, shape->dim) * (double)shape->scale;
    }
    keep_nearest(bed->spec.nearest, scores, near);
    weigh(shape, kv_head, scores, position + 1, out);
}

static void check(const char *policy, int64_t n, int64_t segment)
{
    struct bed bed = {.shape = {4, 2, 16, 16, 10000.0, DTYPE_F32, ROPE_HALVES, 0.6f, 0, 2e-5},
                      .segment = segment,
                      .define = define};
    bed_check(&bed, policy, n);
}

static void a_memory_of_all_that_left_equals_its_definition(void **state)
{
    (void)state;
    check("memory:window=0", 330, 128);
    check("memory:window=50", 280, 77);
    check("memory:window=1000", 300, 128);
}

static void the_oldest_leave_a_memory_that_is_full(void **state)
{
    (void)state;
    check("memory:window=0,memory=90", 350, 128);
    check("memory:window=33,memory=10", 270, 100);
    check("memory:window=3,memory=1", 200, 64);
}

static void a_query_sees_the_nearest_of_a_memory_only(void **state)
{
    (void)state;
    check("memory:window=0,memory=150,top=10", 300, 128);
    check("memory:window=20,top=1", 200, 64);
    check("memory:window=20,top=100", 250, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(a_memory_of_all_that_left_equals_its_definition),
        mpi_unit_test(the_oldest_leave_a_memory_that_is_full),
        mpi_unit_test(a_query_sees_the_nearest_of_a_memory_only),
    };
    return mpi_run_tests(tests);
}
