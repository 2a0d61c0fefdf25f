/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "attention/ring_cost.h"

enum { RANKS = 4, MIB = 1 << 20 };

/* SmolLM2-135M in fp32 on even ranks: `block` queries of a segment each, behind `past` tokens each. */
static struct ring_prediction predict(int64_t block, int64_t past, struct ring_rates rates)
{
    struct ring_share shares[RANKS];
    for (int r = 0; r < RANKS; r++)
        shares[r] = (struct ring_share){past + block, block, rates};
    return ring_cost_predict(&(struct ring_cost){.shares = shares,
                                                 .ranks = RANKS,
                                                 .rounds = 1,
                                                 .key_bytes = 3 * 64 * 2 * 4,
                                                 .query_bytes = 9 * (64 * 8 + 8),
                                                 .pair_flops = 4 * 9 * 64});
}

static const struct ring_rates SLOW_LINK = {1e8, 1e12}, FAST_LINK = {1e12, 1e10};

static void a_few_queries_go_to_many_keys(void **state)
{
    (void)state;
    const struct ring_prediction seconds = predict(16, 100000, SLOW_LINK);
    assert_true(seconds.pass_q < 0.1 * seconds.pass_kv);
}

static void keys_come_to_a_segment_without_a_past(void **state)
{
    (void)state;
    const struct ring_rates rates[] = {SLOW_LINK, FAST_LINK, {1e9, 1e11}};
    for (int i = 0; i < 3; i++) {
        const struct ring_prediction seconds = predict(4096, 0, rates[i]);
        assert_true(seconds.pass_kv < seconds.pass_q);
    }
}

static void keys_that_hide_behind_the_arithmetic_cost_nothing(void **state)
{
    (void)state;
    const double pairs = 512.0 * (100000.0 + 512.0 / 2);
    const struct ring_prediction seconds = predict(512, 100000, FAST_LINK);
    assert_true(fabs(seconds.pass_kv - RANKS * pairs * 4 * 9 * 64 / FAST_LINK.kernel) < 1e-9 * seconds.pass_kv);
    assert_true(seconds.pass_kv < seconds.pass_q);
}

/* The border of bytes where nothing hides: (R - 1) times the keys, or R times the queries. */
static void the_border_lies_where_the_bytes_are_equal(void **state)
{
    (void)state;
    const struct ring_rates rates = {1e6, 1e18};
    const double keys = (RANKS - 1) * 3 * 64 * 2 * 4.0, queries = RANKS * 9 * (64 * 8 + 8.0);
    const int64_t shard = 1000000, border = (int64_t)((double)shard * keys / queries);
    const struct ring_prediction below = predict(border * 99 / 100, shard - border * 99 / 100, rates);
    const struct ring_prediction above = predict(border * 101 / 100, shard - border * 101 / 100, rates);
    assert_true(below.pass_q < below.pass_kv);
    assert_true(above.pass_q > above.pass_kv);
}

static void more_rounds_cost_queries_more(void **state)
{
    (void)state;
    struct ring_share shares[2] = {{1000, 10, SLOW_LINK}, {1000, 10, SLOW_LINK}};
    struct ring_cost cost = {shares, 2, 1, 100, 100, 100};
    const struct ring_prediction one = ring_cost_predict(&cost);
    cost.rounds = 10;
    const struct ring_prediction ten = ring_cost_predict(&cost);
    assert_true(ten.pass_q > one.pass_q && ten.pass_kv == one.pass_kv);
}

static void the_slowest_rank_sets_the_rate(void **state)
{
    (void)state;
    struct ring_share shares[2] = {{1000, 1000, {1e9, 1e9}}, {1000, 1000, {1e9, 1e9}}};
    const struct ring_cost cost = {shares, 2, 1, 100, 100, 100};
    const struct ring_prediction even = ring_cost_predict(&cost);
    shares[1].rates.kernel = 5e8;
    const struct ring_prediction uneven = ring_cost_predict(&cost);
    assert_true(uneven.pass_kv > 1.99 * even.pass_kv && uneven.pass_kv < 2.01 * even.pass_kv);
}

static void a_ring_with_empty_ranks_has_a_price(void **state)
{
    (void)state;
    const struct ring_share shares[3] = {{0, 0, SLOW_LINK}, {100, 5, SLOW_LINK}, {0, 0, SLOW_LINK}};
    const struct ring_prediction seconds = ring_cost_predict(&(struct ring_cost){shares, 3, 1, 100, 100, 100});
    assert_true(seconds.pass_kv > 0 && isfinite(seconds.pass_kv));
    assert_true(seconds.pass_q > 0 && isfinite(seconds.pass_q));
}

static void a_faster_hop_is_believed_at_once_and_a_slower_one_by_degrees(void **state)
{
    (void)state;
    struct ring_rates rates = {1e9, 1e10};
    ring_rates_hop(&rates, MIB, MIB / 4e9, true);
    assert_true(fabs(rates.link - 4e9) < 1);
    ring_rates_hop(&rates, MIB, MIB / 2e9, true);
    assert_true(rates.link < 4e9 && rates.link > 3.5e9);
    for (int i = 0; i < 100; i++)
        ring_rates_hop(&rates, MIB, MIB / 2e9, true);
    assert_true(fabs(rates.link - 2e9) < 1e4);
}

static void a_hidden_hop_only_tells_that_the_link_is_no_slower(void **state)
{
    (void)state;
    struct ring_rates rates = {1e9, 1e10};
    ring_rates_hop(&rates, MIB, 1.0, false);
    assert_true(rates.link == 1e9);
    ring_rates_hop(&rates, MIB, MIB / 2e9, false);
    assert_true(rates.link > 1e9);
}

static void small_or_timeless_measurements_tell_nothing(void **state)
{
    (void)state;
    struct ring_rates rates = {1e9, 1e10};
    ring_rates_hop(&rates, 100, 1e-9, true);
    ring_rates_hop(&rates, MIB, 0, true);
    ring_rates_attend(&rates, 100, 1e-9);
    ring_rates_attend(&rates, 1e12, 0);
    assert_true(rates.link == 1e9 && rates.kernel == 1e10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_few_queries_go_to_many_keys),
        cmocka_unit_test(keys_come_to_a_segment_without_a_past),
        cmocka_unit_test(keys_that_hide_behind_the_arithmetic_cost_nothing),
        cmocka_unit_test(the_border_lies_where_the_bytes_are_equal),
        cmocka_unit_test(more_rounds_cost_queries_more),
        cmocka_unit_test(the_slowest_rank_sets_the_rate),
        cmocka_unit_test(a_ring_with_empty_ranks_has_a_price),
        cmocka_unit_test(a_faster_hop_is_believed_at_once_and_a_slower_one_by_degrees),
        cmocka_unit_test(a_hidden_hop_only_tells_that_the_link_is_no_slower),
        cmocka_unit_test(small_or_timeless_measurements_tell_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
