#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/asked.h"

enum { LAYERS = 4 };

/* Of heads of 64 elements; with a window all of its layers have it. */
static struct model toy(int64_t window)
{
    static const struct arch arch = {.name = "toy"};
    static struct layer layers[LAYERS];
    return (struct model){.arch = &arch,
                          .context = 8192,
                          .shape = {.layers = LAYERS, .kv_heads = 2, .dim = 64, .vocab = 9, .window = window},
                          .layers = layers};
}

struct found {
    struct policy_spec general, policies[LAYERS];
    struct error err;
    int status;
};

static struct found ask(const struct options *options, int64_t window)
{
    struct found found = {0};
    const struct model model = toy(window);
    found.status = asked_policies(options, &model, &found.general, found.policies, &found.err);
    return found;
}

static void assert_refused(const struct options *options, int64_t window, const char *reason)
{
    const struct found found = ask(options, window);
    if (found.status == 0)
        fail_msg("not refused; wanted \"%s\"", reason);
    assert_int_equal(found.err.code, ERROR_USAGE);
    if (!strstr(found.err.text, reason))
        fail_msg("\"%s\" says nothing of \"%s\"", found.err.text, reason);
}

/* A file of --layers with this text. */
static const char *layers_file(const char *text)
{
    static const char path[] = "test_asked.layers";
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
    return path;
}

static void a_budget_goes_into_the_policy(void **state)
{
    (void)state;
    const struct found found = ask(&(struct options){.policy = "h2o", .memory_budget = "1024"}, 0);
    assert_int_equal(found.status, 0);
    for (int layer = 0; layer < LAYERS; layer++)
        assert_int_equal(found.policies[layer].slots, 1024);
}

static void a_budget_goes_into_what_is_chosen_beyond_the_context(void **state)
{
    (void)state;
    const struct options options = {.strategy = STRATEGY_WHOLE, .memory_budget = "1024"};
    const struct model model = toy(0);
    struct policy_spec beyond;
    struct error err;
    assert_int_equal(ask(&options, 0).status, 0);
    assert_true(asked_extends(&options, &model));
    assert_int_equal(asked_beyond(&options, &model, &beyond, &err), 0);
    assert_int_equal(beyond.far, 1024);
}

static void what_is_chosen_stays_within_the_positions_of_the_model(void **state)
{
    (void)state;
    const struct options options = {.strategy = STRATEGY_WHOLE};
    struct model model = toy(0);
    struct policy_spec usual, shorter;
    struct error err;
    assert_int_equal(asked_beyond(&options, &model, &usual, &err), 0);
    assert_true(policy_reach(&usual, 0, 1 << 20) > 1024);
    model.context = 1024;
    assert_int_equal(asked_beyond(&options, &model, &shorter, &err), 0);
    assert_int_equal(policy_reach(&shorter, 0, 1 << 20), 1024);
    shorter.window = usual.window;
    assert_true(policy_same(&shorter, &usual));
}

static void a_budget_without_a_policy_is_refused(void **state)
{
    (void)state;
    const char budget[] = "1024";
    assert_refused(&(struct options){.memory_budget = budget}, 0, "--strategy whole");
    assert_refused(&(struct options){.command = COMMAND_NEEDLE, .memory_budget = budget}, 0, "--policy retrieval");
    assert_refused(&(struct options){.strategy = STRATEGY_WHOLE, .memory_budget = budget, .against = "full"}, 0,
                   "--against");
    assert_refused(&(struct options){.strategy = STRATEGY_WHOLE, .memory_budget = budget, .truncate = 1}, 0,
                   "--truncate");
}

static void a_budget_for_layers_with_windows_of_their_own_is_refused(void **state)
{
    (void)state;
    assert_refused(&(struct options){.strategy = STRATEGY_WHOLE, .memory_budget = "1024"}, 512,
                   "window of its own");
    assert_refused(&(struct options){.policy = "retrieval", .memory_budget = "1GiB"}, 512, "window of its own");
}

static void a_budget_beside_a_file_of_layers_is_refused(void **state)
{
    (void)state;
    const char *file = layers_file("0-1 window:window=8\n");
    assert_refused(&(struct options){.policy = "retrieval", .layers = file, .memory_budget = "1024"}, 0,
                   "--layers");
    assert_refused(&(struct options){.strategy = STRATEGY_WHOLE, .layers = file, .memory_budget = "1024"}, 0,
                   "--layers");
    remove(file);
}

static void a_policy_that_no_layer_would_have_is_refused(void **state)
{
    (void)state;
    assert_refused(&(struct options){.policy = "retrieval"}, 512, "window of its own");
    const char *file = layers_file("0-3 window:window=8\n");
    assert_refused(&(struct options){.policy = "retrieval", .layers = file}, 0, "--layers");
    remove(file);
    file = layers_file("0-2 window:window=8\n");
    assert_int_equal(ask(&(struct options){.policy = "retrieval", .layers = file}, 0).status, 0);
    remove(file);
    assert_int_equal(ask(&(struct options){.policy = "full"}, 512).status, 0);
    assert_int_equal(ask(&(struct options){0}, 512).status, 0);
}

static void an_against_that_no_layer_would_have_is_refused(void **state)
{
    (void)state;
    const struct model model = toy(512);
    struct policy_spec general, policies[LAYERS];
    struct error err;
    const struct options sinks = {.against = "sinks"}, full = {.against = "full"};
    assert_int_equal(asked_against(&sinks, &model, &general, policies, &err), -1);
    assert_int_equal(asked_against(&full, &model, &general, policies, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_budget_goes_into_the_policy),
        cmocka_unit_test(a_budget_goes_into_what_is_chosen_beyond_the_context),
        cmocka_unit_test(what_is_chosen_stays_within_the_positions_of_the_model),
        cmocka_unit_test(a_budget_without_a_policy_is_refused),
        cmocka_unit_test(a_budget_for_layers_with_windows_of_their_own_is_refused),
        cmocka_unit_test(a_budget_beside_a_file_of_layers_is_refused),
        cmocka_unit_test(a_policy_that_no_layer_would_have_is_refused),
        cmocka_unit_test(an_against_that_no_layer_would_have_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
