/* Retrieval of few blocks out of many, on 1 to 4 ranks, against dense attention in fp64 over the first tokens, the
 * chosen blocks and the near part, and nothing else. All queries of a choice look in one direction, other than
 * those of any other choice, and in each block that they are to choose one key has it: so which blocks are chosen
 * is clear, whatever eight bits round. Keys and values are such as four bits hold exactly, so the definition knows
 * nothing of records. The policy is longhaul's own, so there is no other reference. */
#include "tests/mpi/bounded_bed.h"

enum {
    TOKENS = 750,
    SINKS = 4,
    TOP = 2,
    CHOICE = 16, /* tokens of decode that one choice serves */
    GROUPS = (TOKENS + POLICY_GROUP - 1) / POLICY_GROUP,
    CHOICES = GROUPS + BED_GENERATED / CHOICE + 2,
    HEADS = 4,
    KV_HEADS = 2,
    DIM = 32
};

/* The scores of keys with a query's direction are around 6, all others below 1.5. */
static const struct shape SHAPE = {HEADS, KV_HEADS, DIM, 8, 10000.0, DTYPE_F32, ROPE_HALVES, 0.2f, 0, 2e-5};

/* ---- what is looked for ---- */

/* A whole number of 0 .. n - 1 that only depends on its place. */
static int64_t drawn(enum kind kind, int64_t token, int element, int64_t n)
{
    return (int64_t)((number(kind, token, element) + 1) / 2 * (float)n) % n;
}

/* In each kv head, rising. */
static struct choice {
    int64_t n, blocks[KV_HEADS][TOP];
} choices[CHOICES];

static int64_t choice_of(int64_t p)
{
    return p < TOKENS ? p / POLICY_GROUP : GROUPS + p / CHOICE - TOKENS / CHOICE;
}

/* One block of each of TOP equal shares of those that a choice's queries may see, or all where there are no more.
 */
static void choose(const struct policy_spec *spec, int64_t p, struct choice *out)
{
    const int64_t end = i64_max(0, policy_near_first(spec, p, 0) - SINKS) / FAR_BLOCK;
    const int64_t first = spec->far > 0 ? i64_max(0, end - spec->far / FAR_BLOCK) : 0;
    const int64_t share = i64_max(1, (end - first) / TOP);
    out->n = i64_min(TOP, end - first);
    for (int head = 0; head < KV_HEADS; head++)
        for (int64_t i = 0; i < out->n; i++)
            out->blocks[head][i] = first + i * share + drawn(QUERY, p, head * TOP + (int)i, share);
}

static bool is_chosen(const struct choice *choice, int kv_head, int64_t block)
{
    bool found = false;
    for (int64_t i = 0; i < choice->n; i++)
        found = found || choice->blocks[kv_head][i] == block;
    return found;
}

/* ---- tokens ---- */

/* Of a choice and kv head: 1 or -1, orthogonal to all others (Walsh's functions). */
static int direction(int64_t choice, int kv_head, int element)
{
    return __builtin_parityll((unsigned long long)(1 + choice + kv_head * CHOICES) & (unsigned)element) ? 1 : -1;
}

/* One of the sixteen levels of a key's element: small ones, but that each block has both ends of every channel
 * once, and the directions that are looked for in it. */
static int key_level(int64_t token, int kv_head, int element)
{
    const int64_t at = (token + FAR_BLOCK - SINKS) % FAR_BLOCK, block = (token - SINKS) / FAR_BLOCK;
    if (at == FAR_BLOCK / 2 + element % (FAR_BLOCK / 2))
        return 0;
    if (at == FAR_BLOCK / 2 + (element + 5) % (FAR_BLOCK / 2))
        return 15;
    if (at < CHOICES && is_chosen(&choices[at], kv_head, block))
        return direction(at, kv_head, element) > 0 ? 15 : 0;
    return 6 + (int)drawn(KEY, token, kv_head * DIM + element, 4);
}

static float planted(enum kind kind, int64_t token, int element)
{
    const int head = element / DIM, e = element % DIM;
    switch (kind) {
    case QUERY:
        return (float)direction(choice_of(token), head / (HEADS / KV_HEADS), e) +
               0.2f * number(QUERY, token, element);
    case KEY:
        return (float)(2 * key_level(token, head, e) - 15) / 16;
    default: /* eighths, of which each token has a largest one */
        return e == token % DIM ? 0.875f : (float)(drawn(VALUE, token, element, 15) - 7) / 8;
    }
}

/* ---- the definition ---- */

/* What the query at p sees in a kv head, in order; returns how many. */
static int64_t visible_tokens(const struct bed *bed, int64_t p, int kv_head, int64_t *tokens)
{
    const int64_t near = policy_near_first(&bed->spec, p, 0);
    const struct choice *choice = &choices[choice_of(p)];
    int64_t n = 0;
    for (int64_t t = 0; t < i64_min(near, SINKS); t++)
        tokens[n++] = t;
    for (int64_t i = 0; i < choice->n * FAR_BLOCK; i++)
        tokens[n++] = SINKS + choice->blocks[kv_head][i / FAR_BLOCK] * FAR_BLOCK + i % FAR_BLOCK;
    for (int64_t t = near; t <= p; t++)
        tokens[n++] = t;
    return n;
}

static void row(enum kind kind, int64_t token, int head, double *out)
{
    for (int e = 0; e < DIM; e++)
        out[e] = (double)planted(kind, token, head * DIM + e);
}

/* Positions are counted inside what is seen. */
static void define(const struct bed *bed, int64_t p, int head, double *out)
{
    static int64_t tokens[BED_MOST_TOKENS];
    const int kv_head = head / (HEADS / KV_HEADS);
    const int64_t n = visible_tokens(bed, p, kv_head, tokens);
    double q[DIM], k[DIM], v[DIM], sum = 0;
    row(QUERY, p, head, q);
    rotate(&SHAPE, n - 1, q);
    memset(out, 0, DIM * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        row(KEY, tokens[i], kv_head, k);
        row(VALUE, tokens[i], kv_head, v);
        rotate(&SHAPE, i, k);
        const double weight = exp((double)SHAPE.scale * dot(q, k, DIM));
        sum += weight;
        for (int e = 0; e < DIM; e++)
            out[e] += weight * v[e];
    }
    for (int e = 0; e < DIM; e++)
        out[e] /= sum;
}

/* ---- the tests ---- */

static void check(const char *policy, int64_t segment)
{
    struct bed bed = {.shape = SHAPE, .segment = segment, .define = define, .number = planted};
    assert_int_equal(policy_parse(policy, &bed.spec, &err), 0);
    for (int64_t p = TOKENS + BED_GENERATED - 1; p >= 0; p--) /* of each choice the first token is the last here */
        choose(&bed.spec, p, &choices[choice_of(p)]);
    bed_check(&bed, policy, TOKENS);
}

static void only_what_is_chosen_of_many_blocks_is_seen(void **state)
{
    (void)state;
    check("retrieval:window=60,sinks=4,top=2", 256);
    check("retrieval:window=100,sinks=4,top=2", 77);
}

static void what_a_memory_holds_is_bounded_and_chosen_from(void **state)
{
    (void)state;
    check("retrieval:window=60,sinks=4,top=2,memory=192", 256);
    check("retrieval:window=33,sinks=4,top=2,memory=256", 512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(only_what_is_chosen_of_many_blocks_is_seen),
        mpi_unit_test(what_a_memory_holds_is_bounded_and_chosen_from),
    };
    return mpi_run_tests(tests);
}
