/* InfLLM on 1 to 4 ranks, against its definition in fp64, worked out token by token from the paper (Xiao et al.
 * 2024, section 3) and the chunks of its code: which keys are a block's representatives, which blocks a group
 * chooses, and what a query sees at which distance. A wrong choice shows as a wrong answer.
 * (The authors' code itself: test_published.c.) */
#include "tests/mpi/bounded_bed.h"

#include "attention/blocks.h"

enum { TOKENS = 1600, HEADS = 4, KV_HEADS = 2, DIM = 16, MOST_BLOCKS = TOKENS / BLOCK_TOKENS };

static const struct shape SHAPE = {HEADS, KV_HEADS, DIM, DIM, 10000.0, DTYPE_F32, ROPE_HALVES, 0.6f, 0, 2e-5};

/* ---- the definition ---- */

static double keys[TOKENS][KV_HEADS][DIM], turned[TOKENS][KV_HEADS][DIM]; /* raw; at their own positions */
static double attention[HEADS][TOKENS];                                   /* within local windows */
static double representatives[MOST_BLOCKS][HEADS][DIM];
static double answers[TOKENS][HEADS][DIM];

struct earlier {
    const struct policy_spec *spec;
    int64_t near; /* tokens from here on are in no block */
    int64_t blocks;
    int64_t chosen[MOST_BLOCKS], n_chosen;
};

static void fill_keys(void)
{
    for (int64_t t = 0; t < TOKENS; t++)
        for (int head = 0; head < KV_HEADS; head++) {
            row_of(&SHAPE, KEY, t, head, keys[t][head]);
            row_of(&SHAPE, KEY, t, head, turned[t][head]);
            rotate(&SHAPE, t, turned[t][head]);
        }
}

/* Blocks before `oldest` are gone. */
static void choose(struct earlier *earlier, int64_t first, int64_t end)
{
    const int64_t held = earlier->spec->far / BLOCK_TOKENS;
    const int64_t oldest = held > 0 ? i64_max(0, earlier->blocks - held) : 0;
    double scores[MOST_BLOCKS] = {0}, q[DIM];
    for (int64_t p = first; p < end; p++)
        for (int head = 0; head < HEADS; head++) {
            row_of(&SHAPE, QUERY, p, head, q);
            rotate(&SHAPE, earlier->spec->window, q);
            for (int64_t b = oldest; b < earlier->blocks; b++)
                scores[b] += dot(q, representatives[b][head], DIM) / (double)(end - first);
        }
    earlier->n_chosen = i64_min(earlier->spec->top, earlier->blocks - oldest);
    for (int64_t i = 0; i < earlier->n_chosen; i++) {
        int64_t best = oldest;
        for (int64_t b = oldest; b < earlier->blocks; b++)
            if (scores[b] > scores[best])
                best = b;
        earlier->chosen[i] = best;
        scores[best] = -INFINITY;
    }
}

static bool is_chosen(const struct earlier *earlier, int64_t token)
{
    for (int64_t i = 0; i < earlier->n_chosen; i++)
        if ((token - earlier->spec->sinks) / BLOCK_TOKENS == earlier->chosen[i])
            return true;
    return false;
}

static void answer(const struct earlier *earlier, int64_t p, int head, bool observe)
{
    static double scores[TOKENS];
    const struct policy_spec *spec = earlier->spec;
    const int kv_head = head / (HEADS / KV_HEADS);
    double near[DIM], far[DIM], largest = -INFINITY, sum = 0;
    row_of(&SHAPE, QUERY, p, head, near);
    row_of(&SHAPE, QUERY, p, head, far);
    rotate(&SHAPE, p, near);
    rotate(&SHAPE, spec->window, far);
    for (int64_t t = 0; t <= p; t++) {
        const bool local = t > p - spec->window;
        const bool seen = t >= earlier->near || t < spec->sinks || is_chosen(earlier, t);
        scores[t] = -INFINITY;
        if (seen)
            scores[t] = (local ? dot(near, turned[t][kv_head], DIM) : dot(far, keys[t][kv_head], DIM)) *
                        (double)SHAPE.scale;
        largest = fmax(largest, scores[t]);
    }
    for (int64_t t = 0; t <= p; t++)
        sum += exp(scores[t] - largest);
    for (int64_t t = i64_max(0, p - spec->window + 1); t <= p && observe; t++)
        attention[head][t] += exp(scores[t] - largest) / sum;
    weigh(&SHAPE, kv_head, scores, p + 1, answers[p][head]);
}

static void cut_block(struct earlier *earlier)
{
    for (int head = 0; head < HEADS; head++) {
        double *mean = representatives[earlier->blocks][head];
        memset(mean, 0, sizeof representatives[0][0]);
        for (int i = 0; i < 4; i++) {
            int64_t best = earlier->near;
            for (int64_t t = earlier->near; t < earlier->near + BLOCK_TOKENS; t++)
                if (attention[head][t] > attention[head][best])
                    best = t;
            attention[head][best] = -1;
            for (int e = 0; e < DIM; e++)
                mean[e] += keys[best][head / (HEADS / KV_HEADS)][e] / 4;
        }
    }
    earlier->blocks++;
    earlier->near += BLOCK_TOKENS;
}

/* All answers to n tokens in segments and BED_GENERATED more, one by one. */
static void work_out(const struct policy_spec *spec, int64_t n, int64_t segment)
{
    struct earlier earlier = {.spec = spec};
    memset(attention, 0, sizeof attention);
    for (int64_t first = 0; first < n; first += segment) {
        const int64_t last = i64_min(first + segment, n);
        for (int64_t g = first, end; g < last; g = end) {
            end = i64_min(last, (g / POLICY_GROUP + 1) * POLICY_GROUP);
            choose(&earlier, g, end);
            for (int64_t p = g; p < end; p++)
                for (int head = 0; head < HEADS; head++)
                    answer(&earlier, p, head, true);
        }
        if (earlier.near == 0 && last - spec->window >= spec->sinks)
            earlier.near = spec->sinks;
        while (earlier.near >= spec->sinks && earlier.near + BLOCK_TOKENS <= last - spec->window)
            cut_block(&earlier);
    }
    for (int64_t p = n; p < n + BED_GENERATED; p++) {
        choose(&earlier, p, p + 1);
        for (int head = 0; head < HEADS; head++)
            answer(&earlier, p, head, false);
    }
}

/* ---- the program's way ---- */

static void define(const struct bed *bed, int64_t position, int head, double *out)
{
    (void)bed;
    memcpy(out, answers[position][head], sizeof answers[0][0]);
}

/* What is in blocks is all but the first tokens and the near part; the last blocks are held. */
static int64_t forgotten(const struct bed *bed, int64_t position)
{
    const int64_t near = policy_near_first(&bed->spec, position, bed_segment_first(bed, position));
    const int64_t held = bed->spec.far > 0 ? bed->spec.far / BLOCK_TOKENS * BLOCK_TOKENS : TOKENS;
    return i64_max(0, near - bed->spec.sinks - held);
}

static void check(const char *policy, int64_t n, int64_t segment)
{
    struct bed bed = {.shape = SHAPE, .segment = segment, .define = define, .forgotten = forgotten};
    struct policy_spec spec;
    assert_int_equal(policy_parse(policy, &spec, &err), 0);
    work_out(&spec, n, segment);
    bed_check(&bed, policy, n);
}

static void chosen_blocks_and_their_representatives_equal_the_definition(void **state)
{
    (void)state;
    check("infllm:window=100,sinks=10,top=2", 1300, 256);
    check("infllm:window=200,sinks=128,top=1", 1000, 128);
}

static void segments_may_have_any_length(void **state)
{
    (void)state;
    check("infllm:window=50,sinks=4,top=2", 900, 77);
    check("infllm:window=90,sinks=0,top=3", 1100, 512);
}

static void the_oldest_blocks_leave(void **state)
{
    (void)state;
    check("infllm:window=60,sinks=4,top=1,memory=384", 1200, 200);
    check("infllm:window=60,sinks=4,top=1,memory=128", 1500, 700); /* a segment longer than the memory */
}

static void first_tokens_may_be_more_than_a_window_and_a_block(void **state)
{
    (void)state;
    check("infllm:window=100,sinks=600,top=2", 1400, 128);
}

static void what_fits_the_window_is_plain_attention(void **state)
{
    (void)state;
    check("infllm:window=500,sinks=4,top=2", 300, 128);
    check("infllm:window=2000,sinks=4,top=2", 300, 128); /* a distance that the text's rope does not have */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(what_fits_the_window_is_plain_attention),
        mpi_unit_test(chosen_blocks_and_their_representatives_equal_the_definition),
        mpi_unit_test(segments_may_have_any_length),
        mpi_unit_test(the_oldest_blocks_leave),
        mpi_unit_test(first_tokens_may_be_more_than_a_window_and_a_block),
    };
    fill_keys();
    return mpi_run_tests(tests);
}
