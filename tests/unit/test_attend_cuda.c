/* Every attention kernel that the card in use can run, against a dense fp64 answer. */
/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "attend_case.h"
#include "base/gpu.h"

enum { SKIPPED = 77 };

static const struct attend_cuda_kernel *const kernels[] = {&attend_cuda_sm90, &attend_cuda_sm80,
                                                           &attend_cuda_plain};
static const int dims[] = {64, 80, 96, 128, 256};

enum { N_KERNELS = sizeof kernels / sizeof kernels[0], N_DIMS = sizeof dims / sizeof dims[0] };

/* The plain kernel keeps fp32, whose rounding grows with the scores; the others round the weights to bf16. */
static double tolerance_of(const struct attend_cuda_kernel *kernel, float size)
{
    return kernel == &attend_cuda_plain ? 1e-5 * (1 + size / 10) : 1e-2;
}

static void check(const struct attend_case *one)
{
    for (int i = 0; i < N_KERNELS; i++) {
        if (!kernels[i]->supported(gpu_capability(), one->dim))
            continue;
        struct attend_errors errors;
        struct error err;
        if (attend_case_run(kernels[i], one, &errors, &err) != 0)
            fail_msg("%s: %s", kernels[i]->name, err.text);
        const double tolerance = tolerance_of(kernels[i], one->size);
        if (!(errors.o <= tolerance) || !(errors.lse <= 1e-4) || errors.disturbed != 0)
            fail_msg(
                "%s: dim %d group %d tokens %d keys %d sight %d calls %d: o off by %g, lse by %g, %d disturbed",
                kernels[i]->name, one->dim, one->group, (int)one->tokens, (int)one->keys, (int)one->sight,
                one->calls, errors.o, errors.lse, (int)errors.disturbed);
    }
}

static struct attend_case plain_case(int dim)
{
    return (struct attend_case){
        .dim = dim, .group = 1, .tokens = 17, .keys = 300, .calls = 1, .size = 3, .seed = 1};
}

static void every_dimension_sees_its_past(void **state)
{
    (void)state;
    for (int d = 0; d < N_DIMS; d++) {
        struct attend_case one = plain_case(dims[d]);
        one.tokens = 130;
        check(&one);
    }
}

static void keys_may_end_anywhere_in_a_tile(void **state)
{
    (void)state;
    static const int64_t keys[] = {1, 63, 64, 65, 128, 129, 300};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct attend_case one = plain_case(i % 2 ? 64 : 128);
        one.keys = keys[i];
        one.sight = SEES_ALL;
        check(&one);
    }
}

static void tokens_before_the_first_key_see_nothing(void **state)
{
    (void)state;
    for (int d = 0; d < N_DIMS; d++) {
        struct attend_case one = plain_case(dims[d]);
        one.tokens = 130;
        one.keys = 65;
        check(&one);
    }
}

static void query_heads_of_a_group_share_a_tile(void **state)
{
    (void)state;
    static const int groups[] = {1, 3, 7};
    static const int64_t tokens[] = {1, 17, 67, 130};
    for (int i = 0; i < 12; i++) {
        struct attend_case one = plain_case(i % 2 ? 64 : 128);
        one.group = groups[i % 3];
        one.tokens = tokens[i / 3];
        one.keys = 200;
        check(&one);
    }
}

static void windows_skip_the_tiles_before_them(void **state)
{
    (void)state;
    for (int d = 0; d < N_DIMS; d++) {
        struct attend_case one = plain_case(dims[d]);
        one.group = 3;
        one.tokens = 90;
        one.keys = 400;
        one.sight = SEES_WINDOW;
        check(&one);
    }
}

static void spans_may_begin_in_a_tile_and_be_empty(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_DIMS; i++) {
        struct attend_case one = plain_case(dims[i % N_DIMS]);
        one.group = 1 + i % 3;
        one.tokens = 40 + 30 * i;
        one.sight = SEES_PARTS;
        one.seed = 10 + (uint64_t)i;
        check(&one);
    }
}

static void calls_carry_the_state(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_DIMS; i++) {
        struct attend_case one = plain_case(dims[i % N_DIMS]);
        one.tokens = 70;
        one.calls = 3 + i % 2;
        one.sight = i < N_DIMS ? SEES_PAST : SEES_PARTS;
        one.size = 6;
        check(&one);
    }
}

static void pages_may_lie_in_any_order(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_DIMS; i++) {
        struct attend_case one = plain_case(dims[i % N_DIMS]);
        one.keys = i % 2 ? 450 : 330;
        one.pages = true;
        one.sight = i < N_DIMS ? SEES_PAST : SEES_WINDOW;
        check(&one);
    }
}

static void a_bias_is_added_to_the_scores(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_DIMS; i++) {
        struct attend_case one = plain_case(dims[i % N_DIMS]);
        one.bias = true;
        one.pages = i % 2;
        one.calls = 1 + i / N_DIMS;
        one.sight = i < N_DIMS ? SEES_ALL : SEES_PARTS;
        check(&one);
    }
}

static int multiprocessors(void)
{
    int device, n;
    assert_int_equal(cudaGetDevice(&device), cudaSuccess);
    assert_int_equal(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device), cudaSuccess);
    return n;
}

/* So many rows that every tile of them has its own block. */
static void long_memories_go_round_the_slots(void **state)
{
    (void)state;
    for (int d = 0; d < N_DIMS; d++) {
        struct attend_case one = plain_case(dims[d]);
        one.group = 5;
        one.tokens = 12 * multiprocessors();
        one.keys = 1500;
        one.pages = d % 2;
        check(&one);
    }
}

/* So few that, on a card with room, several blocks share the keys. */
static void blocks_may_share_the_keys_of_few_rows(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * N_DIMS; i++) {
        struct attend_case one = plain_case(dims[i % N_DIMS]);
        one.group = 1 + i % 3;
        one.tokens = 1 + 3 * (i / N_DIMS);
        one.keys = 1900;
        one.sight = (enum attend_sight)(i / N_DIMS);
        one.calls = 1 + i % 2;
        one.pages = i % 2;
        check(&one);
    }
}

static void large_scores_stay_finite(void **state)
{
    (void)state;
    for (int d = 0; d < N_DIMS; d++) {
        struct attend_case one = plain_case(dims[d]);
        one.size = 50;
        one.calls = 2;
        check(&one);
    }
}

static void a_kernel_is_chosen_for_the_card(void **state)
{
    (void)state;
    struct error err;
    for (int d = 0; d < N_DIMS; d++) {
        const struct attend_cuda_kernel *chosen = attend_cuda_choose(dims[d], &err);
        assert_non_null(chosen);
        assert_true(chosen->supported(gpu_capability(), dims[d]));
        print_message("dim %d: %s\n", dims[d], chosen->name);
    }
    assert_null(attend_cuda_choose(72, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.text, "72"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dimension_sees_its_past),
        cmocka_unit_test(keys_may_end_anywhere_in_a_tile),
        cmocka_unit_test(tokens_before_the_first_key_see_nothing),
        cmocka_unit_test(query_heads_of_a_group_share_a_tile),
        cmocka_unit_test(windows_skip_the_tiles_before_them),
        cmocka_unit_test(spans_may_begin_in_a_tile_and_be_empty),
        cmocka_unit_test(calls_carry_the_state),
        cmocka_unit_test(pages_may_lie_in_any_order),
        cmocka_unit_test(a_bias_is_added_to_the_scores),
        cmocka_unit_test(long_memories_go_round_the_slots),
        cmocka_unit_test(blocks_may_share_the_keys_of_few_rows),
        cmocka_unit_test(large_scores_stay_finite),
        cmocka_unit_test(a_kernel_is_chosen_for_the_card),
    };
    if (gpu_capability() == 0) {
        print_message("skipped: no GPU here\n");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
