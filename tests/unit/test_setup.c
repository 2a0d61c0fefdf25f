/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "pipeline/opened_model.h"
#include "pipeline/setup.h"

static struct options options;
static struct error err;

/* The set-up of a run that has nothing to do: its device and arithmetic are chosen all the same. */
static int choose(struct setup *setup, enum device_choice device, const char *before)
{
    options = (struct options){.output = "OUT", .device = device};
    *setup = (struct setup){0};
    const struct setup_machine machine = {
        .options = &options, .ranks = 1, .place = {.ranks_on_node = 1, .threads = 3}, .before = before};
    return setup_choose(setup, &machine, &err);
}

static void a_gpu_does_not_go_on_with_what_was_begun_in_f32(void **state)
{
    (void)state;
    struct setup setup;
    assert_int_equal(choose(&setup, DEVICE_CHOICE_CUDA, "f32"), -1);
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.text, "OUT was begun in f32"));
    assert_int_equal(choose(&setup, DEVICE_CHOICE_AUTO, "f32"), 0);
    assert_true(!setup.cuda && setup.dtype == DTYPE_F32);
}

static void a_run_keeps_to_the_arithmetic_it_began_with(void **state)
{
    (void)state;
    struct setup setup;
    assert_int_equal(choose(&setup, DEVICE_CHOICE_CPU, "bf16"), 0);
    assert_int_equal(setup.dtype, DTYPE_BF16);
    assert_int_equal(choose(&setup, DEVICE_CHOICE_CPU, "f32"), 0);
    assert_int_equal(setup.dtype, DTYPE_F32);
}

static void threads_are_those_of_the_place(void **state)
{
    (void)state;
    struct setup setup;
    assert_int_equal(choose(&setup, DEVICE_CHOICE_CPU, ""), 0);
    assert_int_equal(setup.threads, 3);
}

/* The ring of four ranks for some jobs, after results that had been made on that ring. */
static int ring_for(int64_t asked, int64_t jobs, int before)
{
    struct opened_model opened = {0};
    options = (struct options){.output = "OUT", .device = DEVICE_CHOICE_CPU, .ring = asked, .overlap = -1};
    options.model = TEST_DATA_DIR "/data/tiny/llama-tied-f32.gguf";
    assert_int_equal(opened_model_open(&opened, &options, &err), 0);
    struct policy_spec policies[64];
    assert_true(opened.model->shape.layers <= 64);
    struct setup setup = {.segment = 100, .max_new = 10, .n_settings = 1, .reference = -1};
    setup.settings[0] = (struct setup_setting){.general = {.kind = POLICY_FULL}, .max_tokens = 100};
    const struct setup_machine machine = {
        .options = &options,
        .model = opened.model,
        .ranks = 4,
        .place = {.ranks_on_node = 4, .threads = 1},
        .jobs = jobs,
        .before = "",
        .ring_before = before,
        .policies = policies,
    };
    if (setup_choose(&setup, &machine, &err) != 0)
        fail_msg("%s", err.text);
    opened_model_close(&opened);
    return setup.ring;
}

static void a_ring_leaves_no_rank_without_a_job(void **state)
{
    (void)state;
    assert_int_equal(ring_for(0, 4, 0), 1);
    assert_int_equal(ring_for(0, 3, 0), 2);
    assert_int_equal(ring_for(0, 1, 0), 4);
}

static void a_run_keeps_to_the_ring_it_began_with(void **state)
{
    (void)state;
    assert_int_equal(ring_for(0, 1, 1), 1);
    assert_int_equal(ring_for(0, 9, 2), 2);
    assert_int_equal(ring_for(4, 9, 2), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_does_not_go_on_with_what_was_begun_in_f32),
        cmocka_unit_test(a_run_keeps_to_the_arithmetic_it_began_with),
        cmocka_unit_test(threads_are_those_of_the_place),
        cmocka_unit_test(a_ring_leaves_no_rank_without_a_job),
        cmocka_unit_test(a_run_keeps_to_the_ring_it_began_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
