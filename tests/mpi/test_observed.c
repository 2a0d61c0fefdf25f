/* The policies that keep by attention, H2O, SnapKV and the Compressive Transformer's most-used, against their
 * definitions, dense and in fp64, on 1 to 4 ranks: which keys are kept in each kv head, segment by segment, and
 * what queries see of them. (Published code of H2O and SnapKV is in test_published.c; of most-used there is none.)
 */
#include "tests/mpi/bounded_bed.h"

enum { MOST_SEGMENTS = 16, MOST_HEADS = 4, MOST = 512, SNAPKV_QUERIES = 64, SNAPKV_POOLED = 5 };

/* What each kv head has kept before each segment, rising; behind the last one what decode sees. */
static struct {
    int64_t tokens[MOST_SEGMENTS + 1][MOST_HEADS][MOST];
    int64_t count[MOST_SEGMENTS + 1];
} memory;

/* The tokens that the query at `position` of segment `segment` sees in a kv head, in order. */
static int64_t list_seen(const struct bed *bed, int64_t segment, int64_t position, int kv_head, int64_t *out)
{
    const int64_t near = i64_max(0, bed_segment_first(bed, position) - bed->spec.window);
    int64_t n = 0;
    for (; n < memory.count[segment]; n++)
        out[n] = memory.tokens[segment][kv_head][n];
    for (int64_t t = near; t <= position; t++)
        out[n++] = t;
    return n;
}

/* weights [n] = the softmax of one query head over what it sees; positions are indices. */
static int64_t softmax(const struct bed *bed, int64_t segment, int64_t position, int head, int64_t *seen,
                       double *weights)
{
    const struct shape *shape = &bed->shape;
    const int kv_head = head / (shape->heads / shape->kv_heads);
    const int64_t n = list_seen(bed, segment, position, kv_head, seen);
    double q[ATTN_MAX_DIM], k[ATTN_MAX_DIM], sum = 0;
    row_of(shape, QUERY, position, head, q);
    rotate(shape, n - 1, q);
    for (int64_t i = 0; i < n; i++) {
        row_of(shape, KEY, seen[i], kv_head, k);
        rotate(shape, i, k);
        weights[i] = exp(dot(q, k, shape->dim) * (double)shape->scale);
        if (bed->spec.weigh && i < memory.count[segment])
            weights[i] *= (double)bed->spec.rate;
        sum += weights[i];
    }
    for (int64_t i = 0; i < n; i++)
        weights[i] /= sum;
    return n;
}

static void define(const struct bed *bed, int64_t position, int head, double *out)
{
    static int64_t seen[MOST];
    static double weights[MOST];
    const int kv_head = head / (bed->shape.heads / bed->shape.kv_heads);
    const int64_t segment =
        bed_segment_first(bed, position) / bed->segment + (position >= bed->end && bed->end % bed->segment != 0);
    const int64_t n = softmax(bed, segment, position, head, seen, weights);
    memset(out, 0, (size_t)bed->shape.dim * sizeof *out);
    for (int64_t i = 0; i < n; i++)
        for (int e = 0; e < bed->shape.dim; e++)
            out[e] += weights[i] * (double)number(VALUE, seen[i], kv_head * bed->shape.dim + e);
}

/* The candidates with the highest scores, `most` of them, rising. */
static int64_t best_of(const int64_t *candidates, const double *scores, int64_t n, int64_t most, int64_t *out)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t better = 0;
        for (int64_t j = 0; j < n; j++)
            better += scores[j] > scores[i];
        if (better < most)
            out[count++] = candidates[i];
    }
    return count;
}

/* What has been kept, and the one with the highest score of each `rate` candidates behind it; the last of these. */
static int64_t most_used_of(const struct bed *bed, const int64_t *candidates, const double *scores, int64_t before,
                            int64_t n, int64_t *out)
{
    static int64_t all[MOST];
    const int64_t rate = bed->spec.rate, count = before + (n - before) / rate;
    for (int64_t i = 0; i < count; i++) {
        int64_t most = i < before ? i : before + (i - before) * rate;
        for (int64_t j = most; i >= before && j < before + (i - before + 1) * rate; j++)
            most = scores[j] > scores[most] ? j : most;
        all[i] = candidates[most];
    }
    const int64_t gone = i64_max(0, count - bed->spec.slots);
    memcpy(out, all + gone, (size_t)(count - gone) * sizeof *out);
    return count - gone;
}

/* One kv head at the end of segment [first, end): `received` [tokens] so far, in and out. */
static void end_segment(const struct bed *bed, int64_t segment, int kv_head, double *received)
{
    static int64_t seen[MOST], candidates[MOST];
    static double weights[MOST], scores[MOST];
    const struct policy_spec *spec = &bed->spec;
    const bool snapkv = spec->kind == POLICY_SNAPKV;
    const int group = bed->shape.heads / bed->shape.kv_heads;
    const int64_t first = segment * bed->segment, end = i64_min(first + bed->segment, bed->end);
    int64_t n = 0;
    for (int64_t t = 0; t < end && snapkv; t++)
        received[t] = 0;
    for (int64_t p = snapkv ? i64_max(first, end - SNAPKV_QUERIES) : first; p < end; p++)
        for (int g = 0; g < group; g++) {
            const int64_t keys = softmax(bed, segment, p, kv_head * group + g, seen, weights);
            for (int64_t i = 0; i < keys; i++)
                received[seen[i]] += weights[i] / group;
        }
    for (; n < memory.count[segment]; n++)
        candidates[n] = memory.tokens[segment][kv_head][n];
    for (int64_t t = i64_max(0, first - spec->window); t < end - spec->window; t++)
        candidates[n++] = t;
    for (int64_t i = 0; i < n; i++) {
        scores[i] = snapkv ? 0 : received[candidates[i]];
        for (int64_t j = i - SNAPKV_POOLED / 2; j <= i + SNAPKV_POOLED / 2 && snapkv; j++)
            scores[i] += j >= 0 && j < n ? received[candidates[j]] : 0;
    }
    int64_t *next = memory.tokens[segment + 1][kv_head];
    memory.count[segment + 1] = spec->kind == POLICY_COMPRESSIVE
                                    ? most_used_of(bed, candidates, scores, memory.count[segment], n, next)
                                    : best_of(candidates, scores, n, spec->slots, next);
}

static void simulate(const struct bed *bed)
{
    static double received[MOST_HEADS][MOST];
    memset(received, 0, sizeof received);
    memset(&memory, 0, sizeof memory);
    for (int64_t segment = 0; segment * bed->segment < bed->end; segment++)
        for (int head = 0; head < bed->shape.kv_heads; head++)
            end_segment(bed, segment, head, received[head]);
}

static void check(const char *policy, int64_t n, int64_t segment)
{
    struct bed bed = {.shape = {4, 2, 16, 16, 10000.0, DTYPE_F32, ROPE_HALVES, 0.9f, 0, 5e-5},
                      .segment = segment,
                      .end = n,
                      .define = define};
    if (policy_parse(policy, &bed.spec, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(n + BED_GENERATED <= MOST && n / segment < MOST_SEGMENTS);
    simulate(&bed);
    bed_check(&bed, policy, n);
}

static void h2o_keeps_what_got_most_attention(void **state)
{
    (void)state;
    check("h2o:window=40,slots=30", 300, 64);
    check("h2o:window=7,slots=100", 333, 128);
}

static void snapkv_keeps_what_the_last_queries_look_at(void **state)
{
    (void)state;
    check("snapkv:window=64,slots=40", 300, 64);
    check("snapkv:window=70,slots=33", 310, 100);
}

static void the_most_used_of_a_few_stands_for_them(void **state)
{
    (void)state;
    check("compressive:form=used,window=40,rate=4,slots=1000", 300, 100);
    check("compressive:form=used,window=60,rate=3,slots=21", 300, 60);
    check("compressive:form=used,window=40,rate=5,slots=30,weigh=1", 400, 50);
}

static void slots_enough_for_all_keep_all(void **state)
{
    (void)state;
    check("h2o:window=10,slots=1000", 250, 64);
    check("snapkv:window=64,slots=1000", 250, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(h2o_keeps_what_got_most_attention),
        mpi_unit_test(snapkv_keeps_what_the_last_queries_look_at),
        mpi_unit_test(the_most_used_of_a_few_stands_for_them),
        mpi_unit_test(slots_enough_for_all_keep_all),
    };
    return mpi_run_tests(tests);
}
