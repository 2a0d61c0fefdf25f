#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/layers.h"

/* A spec whose bytes between the fields are `filling`. */
static struct policy_spec filled(int filling, const char *text)
{
    struct policy_spec spec, parsed;
    struct error err;
    assert_int_equal(policy_parse(text, &parsed, &err), 0);
    memset(&spec, filling, sizeof spec);
    spec.kind = parsed.kind;
    memcpy(&spec.window, &parsed.window, sizeof spec - offsetof(struct policy_spec, window));
    return spec;
}

static void policies_are_the_same_whatever_lies_between_their_fields(void **state)
{
    (void)state;
    const struct policy_spec a = filled(0x55, "sinks:window=9"), b = filled(0xaa, "sinks:window=9");
    assert_true(policy_same(&a, &b));
}

static void a_policy_differs_by_any_field(void **state)
{
    (void)state;
    const struct policy_spec a = filled(0, "retrieval");
    for (size_t at = offsetof(struct policy_spec, window); at < sizeof a; at += sizeof(int64_t)) {
        struct policy_spec b = a;
        int64_t *field = (int64_t *)(void *)((char *)&b + at);
        ++*field;
        assert_false(policy_same(&a, &b));
    }
    struct policy_spec b = a;
    b.kind = POLICY_SINKS;
    assert_false(policy_same(&a, &b));
}

static void layers_are_described_together_whatever_lies_between_their_fields(void **state)
{
    (void)state;
    const struct policy_spec policies[] = {filled(1, "window:window=8"), filled(2, "full"),
                                           filled(3, "window:window=8")};
    char out[256];
    layers_describe(policies, 3, out, sizeof out);
    assert_string_equal(out, "window:window=8 x2, full x1");
}

/* Of two layers, trained with windows of 8 tokens. */
static const struct model *windowed(void)
{
    static const struct arch arch = {.name = "toy"};
    static struct layer layers[2];
    static struct model model;
    model = (struct model){.arch = &arch, .shape = {.layers = 2, .window = 8}, .layers = layers};
    return &model;
}

static void a_models_own_windows_are_not_lossy_whatever_lies_between_their_fields(void **state)
{
    (void)state;
    const struct policy_spec own[] = {filled(7, "window:window=8"), filled(9, "window:window=8")};
    const struct policy_spec other[] = {own[0], filled(9, "window:window=7")};
    assert_false(layers_lossy(own, windowed()));
    assert_true(layers_lossy(other, windowed()));
    assert_true(layers_untouched(own, windowed()));
    assert_false(layers_untouched(other, windowed()));
}

static void windows_that_are_lifted_cost_nothing_and_are_not_the_models_own(void **state)
{
    (void)state;
    const struct policy_spec lifted[] = {filled(7, "window:window=8"), filled(9, "full")};
    assert_false(layers_lossy(lifted, windowed()));
    assert_false(layers_untouched(lifted, windowed()));
}

/* Of 10,000 tokens in segments of 1,000, under a general policy of a model of one layer. */
static int64_t intact(const char *policy, int64_t window)
{
    struct layer layer = {0};
    const struct arch arch = {.name = "toy"};
    const struct model model = {.arch = &arch, .shape = {.layers = 1, .window = window}, .layers = &layer};
    const struct policy_spec spec = filled(0, policy);
    return layers_intact(&spec, &model, 1000, 10000);
}

static void tokens_are_intact_until_something_leaves_the_memory(void **state)
{
    (void)state;
    assert_int_equal(intact("full", 0), 10000);
    assert_int_equal(intact("window:window=8000", 0), 8000);
    assert_int_equal(intact("sinks:window=8000,sinks=4", 0), 8004);
    assert_int_equal(intact("sinks:window=20000", 0), 10000);
    assert_int_equal(intact("infllm:window=4096,sinks=128", 0), 4224);
    assert_int_equal(intact("compressive:window=380", 0), 1000);
    /* 384 tokens before a segment, and 3,000 before these: the fifth segment has lost some */
    assert_int_equal(intact("h2o:window=384,slots=3000", 0), 4000);
    assert_int_equal(intact("snapkv:slots=10000", 0), 10000);
    assert_int_equal(intact("memory", 0), 1000);
    assert_int_equal(intact("landmark:token=3", 0), 1);
    /* what is not kept by the model's own window is not missed */
    assert_int_equal(intact("window:window=512", 512), 10000);
    assert_int_equal(intact("window:window=511", 512), 511);
}

static void far_keys_are_searched_once_there_are_some(void **state)
{
    (void)state;
    const struct policy_spec policies[] = {filled(0, "retrieval"), filled(0, "full")};
    const int64_t near = policy_near_reach(&policies[0]);
    assert_true(layers_keys_searched(policies, 2, near) == 0);
    assert_true(layers_keys_searched(policies, 2, near + 1000) > 0);
    assert_true(layers_keys_searched(policies + 1, 1, 1000000) == 0);
    for (int64_t n = near + 50000; n < near + 150000; n += 9999) { /* on either side of where glances begin */
        const double before = layers_keys_searched(policies, 2, n - 1), here = layers_keys_searched(policies, 2, n);
        const double after = layers_keys_searched(policies, 2, n + 1);
        assert_true(here > before && after > here);
        assert_true((after - here) / (here - before) < 1.01);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_are_the_same_whatever_lies_between_their_fields),
        cmocka_unit_test(a_policy_differs_by_any_field),
        cmocka_unit_test(layers_are_described_together_whatever_lies_between_their_fields),
        cmocka_unit_test(a_models_own_windows_are_not_lossy_whatever_lies_between_their_fields),
        cmocka_unit_test(windows_that_are_lifted_cost_nothing_and_are_not_the_models_own),
        cmocka_unit_test(tokens_are_intact_until_something_leaves_the_memory),
        cmocka_unit_test(far_keys_are_searched_once_there_are_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
