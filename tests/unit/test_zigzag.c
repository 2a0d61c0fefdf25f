/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/ring.h"
#include "base/num.h"

static const int64_t FIRSTS[] = {0, 128, 1000, 4096, ((int64_t)1 << 40) + 7};
static const int64_t LENGTHS[] = {0, 1, 2, 7, 127, 128, 129, 200, 1023, 1024, 4097, 100000};

/* Calls check(first, end, ranks) for many segments and rings. */
static void for_all(void (*check)(int64_t first, int64_t end, int ranks))
{
    for (size_t f = 0; f < sizeof FIRSTS / sizeof FIRSTS[0]; f++)
        for (size_t l = 0; l < sizeof LENGTHS / sizeof LENGTHS[0]; l++)
            for (int ranks = 1; ranks <= 9; ranks++)
                check(FIRSTS[f], FIRSTS[f] + LENGTHS[l], ranks);
}

/* The blocks in order: rank 0 early .. last rank early, last rank late .. rank 0 late. */
static void check_cover(int64_t first, int64_t end, int ranks)
{
    int64_t at = first;
    for (int b = 0; b < 2 * ranks; b++) {
        struct zigzag block = zigzag_block(first, end, b < ranks ? b : 2 * ranks - 1 - b, ranks);
        assert_true(block.first[b >= ranks] == at);
        assert_true(block.end[b >= ranks] >= at);
        at = block.end[b >= ranks];
    }
    assert_true(at == end);
}

static void blocks_hold_each_token_once_in_zigzag_order(void **state)
{
    (void)state;
    for_all(check_cover);
}

static void check_borders(int64_t first, int64_t end, int ranks)
{
    for (int r = 0; r < ranks; r++) {
        struct zigzag block = zigzag_block(first, end, r, ranks);
        for (int i = 0; i < 2; i++) {
            assert_true(block.first[i] == first || block.first[i] == end || block.first[i] % ZIGZAG_GRAIN == 0);
            assert_true(block.end[i] == first || block.end[i] == end || block.end[i] % ZIGZAG_GRAIN == 0);
        }
    }
}

static void borders_lie_at_multiples_of_the_grain(void **state)
{
    (void)state;
    for_all(check_borders);
}

static void check_balance(int64_t first, int64_t end, int ranks)
{
    const int64_t even = (end - first) / ranks;
    for (int r = 0; r < ranks; r++) {
        struct zigzag block = zigzag_block(first, end, r, ranks);
        int64_t tokens = block.end[0] - block.first[0] + block.end[1] - block.first[1];
        assert_true(tokens <= even + 2 * ZIGZAG_GRAIN + 1 && tokens >= even - 2 * ZIGZAG_GRAIN - 1);
    }
}

static void ranks_differ_by_no_more_than_a_few_grains(void **state)
{
    (void)state;
    for_all(check_balance);
}

static void ranks_share_causal_work_equally(void **state)
{
    (void)state;
    for (int r = 0; r < 4; r++) {
        struct zigzag block = zigzag_block(0, 4096, r, 4);
        int64_t work = 0;
        for (int i = 0; i < 2; i++)
            for (int64_t p = block.first[i]; p < block.end[i]; p++)
                work += p + 1;
        assert_int_equal(work, (int64_t)4096 * 4097 / 2 / 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_hold_each_token_once_in_zigzag_order),
        cmocka_unit_test(borders_lie_at_multiples_of_the_grain),
        cmocka_unit_test(ranks_differ_by_no_more_than_a_few_grains),
        cmocka_unit_test(ranks_share_causal_work_equally),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
