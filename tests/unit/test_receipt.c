#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/receipt.h"

static void assert_near(double a, double b)
{
    if (!(fabs(a - b) < 1e-6))
        fail_msg("%.9g is not %.9g", a, b);
}

/* p = (1/4, 3/4), reference = (1/2, 1/2): KL = ln 2 / 2 + ln(2/3) / 2 = 0.1438410; the second token gains ln 1.5.
 */
static void a_probe_has_the_divergence_worked_out_by_hand(void **state)
{
    (void)state;
    const float logits[] = {5, 5 + logf(3)}, reference[] = {-1, -1};
    struct receipt receipt = {0};
    receipt_add_probe(&receipt, &(struct receipt_probe){logits, reference, 2, 1, 7});
    assert_int_equal(receipt.divergence.count, 1);
    assert_near(receipt.divergence.sum, 0.1438410);
    assert_int_equal(receipt.divergence.worst_position, 7);
    assert_near(receipt.loss.worst, -0.4054651);
    assert_near(receipt.loss.nll_sum, 0.2876821);
    assert_near(receipt.loss.reference_nll_sum, 0.6931472);
}

static void equal_logits_cost_exactly_nothing(void **state)
{
    (void)state;
    const float logits[] = {0.1f, 2.7f, -3, 1e3f, 999.5f};
    struct receipt receipt = {0};
    for (int32_t token = 0; token < 5; token++)
        receipt_add_probe(&receipt, &(struct receipt_probe){logits, logits, 5, token, token});
    assert_true(receipt.divergence.sum == 0 && receipt.divergence.worst == 0);
    assert_true(receipt.loss.worst == 0 && receipt_mean_loss(&receipt.loss) == 0);
}

static void losses_have_a_mean_and_a_worst(void **state)
{
    (void)state;
    struct receipt_loss loss = {0};
    receipt_add_loss(&loss, -2, -1.5, 10);
    receipt_add_loss(&loss, -3, -1, 11);
    receipt_add_loss(&loss, -1, -4, 12);
    assert_near(receipt_mean_loss(&loss), -0.5 / 3);
    assert_near(loss.worst, 2);
    assert_int_equal(loss.worst_position, 11);
}

static void probes_are_spread_evenly_and_each_predicts_a_token(void **state)
{
    (void)state;
    assert_int_equal(receipt_probe_position(0, 2, 101), 26);
    assert_int_equal(receipt_probe_position(1, 2, 101), 76);
    for (int64_t n = 2; n < 200; n++) {
        const int64_t probes = n - 1 < RECEIPT_PROBES ? n - 1 : RECEIPT_PROBES;
        int64_t before = 0;
        for (int64_t k = 0; k < probes; k++) {
            const int64_t position = receipt_probe_position(k, probes, n);
            assert_true(position > before && position < n);
            before = position;
        }
    }
}

static void chunks_merge_with_their_positions_and_the_longest_ones_memory(void **state)
{
    (void)state;
    struct receipt one = {.memory = {100, 1000, 4000}}, other = {.memory = {60, 900, 2400}}, all = {0};
    receipt_add_loss(&one.loss, -2, -1, 5);
    receipt_add_loss(&other.loss, -4, -1, 9);
    one.divergence = (struct receipt_divergence){64, 6.4, 0.5, 3};
    other.divergence = (struct receipt_divergence){64, 3.2, 0.25, 8};
    receipt_merge(&all, &one, 0);
    receipt_merge(&all, &other, 90);
    assert_near(receipt_mean_loss(&all.loss), 2);
    assert_int_equal(all.loss.worst_position, 99);
    assert_near(receipt_mean_divergence(&all.divergence), 0.075);
    assert_int_equal(all.divergence.worst_position, 3);
    assert_int_equal(all.memory.bytes, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_probe_has_the_divergence_worked_out_by_hand),
        cmocka_unit_test(equal_logits_cost_exactly_nothing),
        cmocka_unit_test(losses_have_a_mean_and_a_worst),
        cmocka_unit_test(probes_are_spread_evenly_and_each_predicts_a_token),
        cmocka_unit_test(chunks_merge_with_their_positions_and_the_longest_ones_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
