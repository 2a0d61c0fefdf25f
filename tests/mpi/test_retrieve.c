/* Retrieval on 1 to 4 ranks: the blocks that a group of queries looks for are found, whoever holds them. Each group
 * and kv head has a direction of its own, which all its queries share and which one key in each of TOP blocks has
 * too. Where all keys are noise, what is chosen is held against the definition in fp64, and against one rank's
 * choice. The policy is longhaul's own, so the definition of attention/retrieve.h is the only reference.
 */
#include "tests/mpi/mpi_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/policy.h"
#include "attention/retrieve.h"
#include "attention/ring.h"

enum { HEADS = 6, KV_HEADS = 2, DIM = 64, TOP = 5, SINKS = 4, GROUPS = 6, TOKENS = GROUPS * POLICY_GROUP };

/* A number in -1 .. 1 that only depends on its place. */
static float number(int64_t place, int element)
{
    uint64_t x = ((uint64_t)place * 100003 + (uint64_t)element + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (float)((x ^ x >> 31) >> 40) / 8388608.0f - 1.0f;
}

static const float SCALE = 0.5f;

enum place { DIRECTION = 1 << 24, NOISE = 2 << 24, WHICH = 3 << 24 };

/* The i-th block that a group and head look for, rising with i: one of an equal share of all. */
static int64_t wanted(int64_t group, int kv_head, int64_t i, int64_t blocks)
{
    const int64_t share = blocks / TOP;
    const float at = number(WHICH + group * KV_HEADS + kv_head, (int)i) / 2 + 0.5f;
    return i * share + i64_min(share - 1, (int64_t)(at * (float)share));
}

enum keys { PLANTED, NOISY };

struct fixture {
    const struct comm *group;
    struct pool *pool;
    struct far far;
    struct near near;
    struct retrieve *retrieve;
    int64_t blocks;
    struct retrieve_group groups[2 * GROUPS];
    int64_t n_groups;
    float *q;
};

/* Noise. */
static void fill_near(struct fixture *f, float loudness)
{
    static float k[KV_HEADS * DIM], v[KV_HEADS * DIM];
    for (int64_t t = 0; t < SINKS + f->blocks * FAR_BLOCK; t++) {
        for (int e = 0; e < KV_HEADS * DIM; e++)
            k[e] = loudness * number(NOISE + t, e);
        near_put(&f->near, t, k, v);
    }
}

/* At a token of each wanted block the direction of those who want it. */
static void plant_wanted(struct fixture *f)
{
    for (int64_t g = 0; g < GROUPS; g++)
        for (int64_t i = 0; i < TOP; i++) {
            int64_t token[KV_HEADS];
            for (int head = 0; head < KV_HEADS; head++) {
                token[head] = SINKS + wanted(g, head, i, f->blocks) * FAR_BLOCK + g * 5 + i % 5;
                float *row = near_keys(&f->near, head, token[head]);
                for (int e = 0; e < DIM; e++)
                    row[e] = number(DIRECTION + g * KV_HEADS + head, e);
            }
        }
}

static void open_fixture(struct fixture *f, const struct comm *group, enum keys keys, int64_t blocks,
                         int64_t capacity)
{
    *f = (struct fixture){.group = group, .blocks = blocks};
    const int64_t tokens = SINKS + blocks * FAR_BLOCK;
    const struct near_shape near = {KV_HEADS, DIM, DTYPE_F32, tokens};
    const struct far_shape far = {KV_HEADS, DIM, SINKS, capacity, 0};
    assert_non_null(f->pool = pool_create(2, &err));
    assert_int_equal(near_create(&f->near, &near, device_cpu(), &err), 0);
    assert_int_equal(far_create(&f->far, &far, group, device_cpu(), &err), 0);
    assert_int_equal(near_extend(&f->near, tokens, &err), 0);
    fill_near(f, keys == NOISY ? 1.0f : 0.1f);
    if (keys == PLANTED)
        plant_wanted(f);
    far_append(&f->far, &f->near, tokens / 3, f->pool);
    far_append(&f->far, &f->near, tokens, f->pool);
    const struct retrieve_options options = {.group = group,
                                             .pool = f->pool,
                                             .device = device_cpu(),
                                             .heads = HEADS,
                                             .kv_heads = KV_HEADS,
                                             .dim = DIM,
                                             .max_groups = 2 * GROUPS,
                                             .max_count = POLICY_GROUP,
                                             .max_blocks = blocks};
    assert_non_null(f->retrieve = retrieve_create(&options, &err));
    assert_non_null(f->q = calloc((size_t)TOKENS * HEADS * DIM, sizeof *f->q));
}

static void close_fixture(struct fixture *f)
{
    free(f->q);
    retrieve_free(f->retrieve);
    far_free(&f->far);
    near_free(&f->near);
    pool_free(f->pool);
}

/* The groups of all ranks in the order of ranks, each seeing all blocks; this rank's queries. */
static void deal_groups(struct fixture *f)
{
    for (int rank = 0; rank < f->group->size; rank++) {
        const struct zigzag z = zigzag_block(0, TOKENS, rank, f->group->size);
        int64_t row = 0;
        for (int part = 0; part < 2; part++)
            for (int64_t p = z.first[part]; p < z.end[part]; p += POLICY_GROUP, row += POLICY_GROUP) {
                f->groups[f->n_groups++] = (struct retrieve_group){rank, row, POLICY_GROUP, 0, f->blocks};
                for (int64_t t = 0; t < POLICY_GROUP && rank == f->group->rank; t++)
                    for (int e = 0; e < HEADS * DIM; e++)
                        f->q[(row + t) * HEADS * DIM + e] =
                            number(DIRECTION + p / POLICY_GROUP * KV_HEADS + e / DIM / (HEADS / KV_HEADS),
                                   e % DIM) +
                            0.2f * number(NOISE - p - t, e);
            }
    }
}

/* Which group of the sequence the n-th in the order of ranks is. */
static int64_t group_at(const struct fixture *f, int64_t n)
{
    for (int rank = 0; rank < f->group->size; rank++) {
        const struct zigzag z = zigzag_block(0, TOKENS, rank, f->group->size);
        for (int part = 0; part < 2; part++)
            for (int64_t p = z.first[part]; p < z.end[part]; p += POLICY_GROUP)
                if (n-- == 0)
                    return p / POLICY_GROUP;
    }
    fail();
    return -1;
}

static void check_found(const struct fixture *f, const int64_t *chosen, const int64_t *counts)
{
    for (int64_t g = 0; g < f->n_groups; g++) {
        assert_int_equal(counts[g], TOP);
        for (int head = 0; head < KV_HEADS; head++)
            for (int64_t i = 0; i < TOP; i++)
                assert_int_equal(chosen[(g * KV_HEADS + head) * TOP + i],
                                 wanted(group_at(f, g), head, i, f->blocks));
    }
}

/* What all groups choose, of the best TOP. */
static void choose(const struct fixture *f, int64_t *chosen, int64_t *counts)
{
    const struct retrieve_call call = {.far = &f->far,
                                       .groups = f->groups,
                                       .n_groups = f->n_groups,
                                       .q = f->q,
                                       .stride = HEADS * DIM,
                                       .scale = SCALE,
                                       .top = TOP};
    if (retrieve_choose(f->retrieve, &call, chosen, counts, &err) != 0)
        fail_msg("%s", err.text);
}

static void check(int64_t blocks)
{
    struct fixture f;
    int64_t chosen[2 * GROUPS * KV_HEADS * TOP], counts[2 * GROUPS];
    open_fixture(&f, &world, PLANTED, blocks, blocks);
    deal_groups(&f);
    choose(&f, chosen, counts);
    check_found(&f, chosen, counts);
    close_fixture(&f);
}

static void wanted_blocks_are_found(void **state)
{
    (void)state;
    check(40);
    check(501);
}

static void wanted_blocks_are_found_among_thousands(void **state)
{
    (void)state;
    check(3 * RETRIEVE_CANDIDATES + 7);
}

/* ---- the definition ---- */

/* The largest product of a query with a block's keys, as these are after four bits. */
static double score_by_definition(const struct fixture *f, const float *q, int kv_head, int64_t block)
{
    float keys[FAR_BLOCK * DIM], values[FAR_BLOCK * DIM];
    static char record[8192];
    const int64_t token = SINKS + block * FAR_BLOCK;
    double best = -INFINITY;
    assert_true(far_record_bytes(DIM) <= sizeof record);
    far_record_write(record, DTYPE_F32, DIM, near_keys(&f->near, kv_head, token),
                     near_values(&f->near, kv_head, token));
    far_record_read(record, DTYPE_F32, DIM, keys, values);
    for (int n = 0; n < FAR_BLOCK; n++) {
        double dot = 0;
        for (int e = 0; e < DIM; e++)
            dot += (double)q[e] * (double)keys[n * DIM + e];
        best = fmax(best, dot);
    }
    return best * (double)SCALE;
}

/* weights [blocks]: the sum, over one query in RETRIEVE_SAMPLE of a group and the heads of a kv head, of the
 * softmax over blocks of these scores. */
static void weigh_by_definition(const struct fixture *f, const struct retrieve_group *group, int kv_head,
                                double *weights)
{
    static double scores[512];
    assert_true(f->blocks <= 512);
    memset(weights, 0, (size_t)f->blocks * sizeof *weights);
    for (int64_t t = 0; t < group->count; t += RETRIEVE_SAMPLE)
        for (int head = kv_head * (HEADS / KV_HEADS); head < (kv_head + 1) * (HEADS / KV_HEADS); head++) {
            const float *q = f->q + ((group->row + t) * HEADS + head) * DIM;
            double sum = 0;
            for (int64_t b = 0; b < f->blocks; b++)
                sum += scores[b] = exp(score_by_definition(f, q, kv_head, b));
            for (int64_t b = 0; b < f->blocks; b++)
                weights[b] += scores[b] / sum;
        }
}

/* Whether all that is chosen is among the best, but for what eight bits round: within 5% of the last of them. */
static void check_best(const struct fixture *f, const int64_t *chosen, const double *weights)
{
    for (int64_t i = 0; i < TOP; i++) {
        int64_t better = 0;
        for (int64_t b = 0; b < f->blocks; b++)
            better += weights[b] > weights[chosen[i]] / 0.95;
        assert_true(better < TOP);
        assert_true(i == 0 || chosen[i] > chosen[i - 1]);
    }
}

static void a_choice_is_that_of_the_definition(void **state)
{
    enum { BLOCKS = 150 };
    (void)state;
    struct fixture f;
    int64_t chosen[2 * GROUPS * KV_HEADS * TOP], counts[2 * GROUPS];
    double weights[BLOCKS];
    open_fixture(&f, &world, NOISY, BLOCKS, BLOCKS);
    deal_groups(&f);
    choose(&f, chosen, counts);
    for (int64_t g = 0; g < f.n_groups; g++)
        for (int head = 0; head < KV_HEADS && f.groups[g].rank == world.rank; head++) {
            weigh_by_definition(&f, &f.groups[g], head, weights);
            check_best(&f, chosen + (g * KV_HEADS + head) * TOP, weights);
        }
    close_fixture(&f);
}

/* What each group of the sequence chooses on the ranks of `group`, [GROUPS][KV_HEADS][TOP]. */
static void choose_in_order(const struct comm *group, int64_t blocks, int64_t *out)
{
    struct fixture f;
    int64_t chosen[2 * GROUPS * KV_HEADS * TOP], counts[2 * GROUPS];
    open_fixture(&f, group, NOISY, blocks, blocks);
    deal_groups(&f);
    choose(&f, chosen, counts);
    for (int64_t g = 0; g < f.n_groups; g++)
        memcpy(out + group_at(&f, g) * KV_HEADS * TOP, chosen + g * KV_HEADS * TOP, KV_HEADS * TOP * sizeof *out);
    close_fixture(&f);
}

static void choices_among_thousands_do_not_depend_on_the_ranks(void **state)
{
    const struct comm self = {MPI_COMM_SELF, 0, 1};
    int64_t alone[GROUPS * KV_HEADS * TOP], together[GROUPS * KV_HEADS * TOP];
    (void)state;
    choose_in_order(&self, 3 * RETRIEVE_CANDIDATES + 7, alone);
    choose_in_order(&world, 3 * RETRIEVE_CANDIDATES + 7, together);
    assert_memory_equal(alone, together, sizeof alone);
}

/* ---- what a group sees ---- */

/* Groups that begin and end at different blocks, as under a bounded memory: what they want is found where they see
 * it, and nothing else is looked at. */
static void check_spans(int64_t blocks)
{
    struct fixture f;
    int64_t chosen[2 * GROUPS * KV_HEADS * TOP], counts[2 * GROUPS];
    open_fixture(&f, &world, PLANTED, blocks, blocks);
    deal_groups(&f);
    for (int64_t g = 0; g < f.n_groups; g++) {
        f.groups[g].first = blocks / 3 * (g % 2) + 7 * (f.n_groups - g);
        f.groups[g].end = blocks - 5 * g;
    }
    choose(&f, chosen, counts);
    for (int64_t g = 0; g < f.n_groups; g++)
        for (int head = 0; head < KV_HEADS; head++) {
            const int64_t *of = chosen + (g * KV_HEADS + head) * TOP;
            assert_int_equal(counts[g], TOP);
            for (int64_t i = 0; i < TOP; i++) {
                const int64_t want = wanted(group_at(&f, g), head, i, blocks);
                bool found = want < f.groups[g].first || want >= f.groups[g].end;
                for (int64_t c = 0; c < TOP; c++)
                    found = found || of[c] == want;
                assert_true(found);
                assert_true(of[i] >= f.groups[g].first && of[i] < f.groups[g].end);
            }
        }
    close_fixture(&f);
}

static void groups_may_see_different_blocks(void **state)
{
    (void)state;
    check_spans(400);
    check_spans(3 * RETRIEVE_CANDIDATES + 7);
}

/* As in decode: every rank has the query, and it is one. */
static void one_query_finds_its_blocks(void **state)
{
    (void)state;
    struct fixture f;
    int64_t chosen[KV_HEADS * TOP], counts[1];
    open_fixture(&f, &world, PLANTED, 333, 333);
    for (int e = 0; e < HEADS * DIM; e++)
        f.q[e] = number(DIRECTION + 2 * KV_HEADS + e / DIM / (HEADS / KV_HEADS), e % DIM);
    const struct retrieve_group group = {RETRIEVE_EVERY, 0, 1, 0, f.blocks};
    const struct retrieve_call call = {
        .far = &f.far, .groups = &group, .n_groups = 1, .q = f.q, .scale = SCALE, .top = TOP};
    assert_int_equal(retrieve_choose(f.retrieve, &call, chosen, counts, &err), 0);
    for (int head = 0; head < KV_HEADS; head++)
        for (int64_t i = 0; i < TOP; i++)
            assert_int_equal(chosen[head * TOP + i], wanted(2, head, i, f.blocks));
    close_fixture(&f);
}

static void what_a_group_does_not_see_is_not_chosen(void **state)
{
    (void)state;
    struct fixture f;
    int64_t chosen[KV_HEADS * TOP], counts[1];
    open_fixture(&f, &world, PLANTED, 333, 333);
    for (int64_t visible = 0; visible < 9; visible += 2) {
        const struct retrieve_group group = {RETRIEVE_EVERY, 0, 1, 100, 100 + visible};
        const struct retrieve_call call = {
            .far = &f.far, .groups = &group, .n_groups = 1, .q = f.q, .scale = SCALE, .top = TOP};
        assert_int_equal(retrieve_choose(f.retrieve, &call, chosen, counts, &err), 0);
        assert_int_equal(counts[0], i64_min(TOP, visible));
        for (int64_t i = 0; i < counts[0]; i++)
            assert_true(chosen[i] >= 100 && chosen[i] < 100 + visible);
    }
    close_fixture(&f);
}

/* Records come whole from whichever rank holds them, and those that have left are not among the chosen. */
static void the_oldest_blocks_leave_and_the_others_can_be_fetched(void **state)
{
    enum { BLOCKS = 100, CAPACITY = 31 };
    static char expected[8192], records[KV_HEADS * TOP * 8192], stage[2 * sizeof records];
    struct fixture f;
    int64_t chosen[KV_HEADS * TOP], counts[1];
    struct far_want wants[KV_HEADS * TOP];
    (void)state;
    open_fixture(&f, &world, PLANTED, BLOCKS, CAPACITY);
    const size_t bytes = far_record_bytes(DIM);
    assert_true(bytes <= sizeof expected);
    const struct retrieve_group group = {RETRIEVE_EVERY, 0, 1, BLOCKS - CAPACITY, BLOCKS};
    const struct retrieve_call call = {
        .far = &f.far, .groups = &group, .n_groups = 1, .q = f.q, .scale = SCALE, .top = TOP};
    assert_int_equal(retrieve_choose(f.retrieve, &call, chosen, counts, &err), 0);
    assert_int_equal(counts[0], TOP);
    for (int i = 0; i < KV_HEADS * TOP; i++) {
        assert_true(chosen[i] >= BLOCKS - CAPACITY && chosen[i] < BLOCKS);
        wants[i] = (struct far_want){world.size - 1, i / TOP, chosen[i]};
    }
    const struct far_wants wanted = {wants, KV_HEADS * TOP, stage, records};
    assert_int_equal(far_fetch(&f.far, &world, &wanted, &err), 0);
    for (int i = 0; i < KV_HEADS * TOP && world.rank == world.size - 1; i++) {
        const int64_t token = SINKS + chosen[i] * FAR_BLOCK;
        far_record_write(expected, DTYPE_F32, DIM, near_keys(&f.near, i / TOP, token),
                         near_values(&f.near, i / TOP, token));
        assert_memory_equal(records + (size_t)i * bytes, expected, bytes);
    }
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(wanted_blocks_are_found),
        mpi_unit_test(wanted_blocks_are_found_among_thousands),
        mpi_unit_test(a_choice_is_that_of_the_definition),
        mpi_unit_test(choices_among_thousands_do_not_depend_on_the_ranks),
        mpi_unit_test(groups_may_see_different_blocks),
        mpi_unit_test(one_query_finds_its_blocks),
        mpi_unit_test(the_oldest_blocks_leave_and_the_others_can_be_fetched),
        mpi_unit_test(what_a_group_does_not_see_is_not_chosen),
    };
    return mpi_run_tests(tests);
}
