/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/cpu.h"

static void wider_instructions_imply_the_narrower_ones(void **state)
{
    (void)state;
    struct cpu_features features = cpu_features();
    assert_true(!features.fast_bf16 || features.avx512_bf16);
    assert_true(!features.avx512_bf16 || features.avx512);
    assert_true(!features.avx512 || features.avx2_fma);
}

static void there_is_at_least_one_core(void **state)
{
    (void)state;
    assert_true(cpu_cores() >= 1);
}

static void a_mask_has_the_cores_and_only_those(void **state)
{
    (void)state;
    static int32_t may[CPU_MOST];
    int n = 0;
    assert_int_equal(cpu_mask(0, may), cpu_cores());
    for (int cpu = 0; cpu < CPU_MOST; cpu++) {
        assert_true(may[cpu] == 0 || may[cpu] == 1);
        n += may[cpu];
    }
    assert_int_equal(n, cpu_cores());
    assert_int_equal(cpu_mask(-1, may), 0); /* no such process */
}

static void a_long_model_name_is_cut_and_terminated(void **state)
{
    (void)state;
    char whole[256], cut[6];
    cpu_model_name(whole, sizeof whole);
    cpu_model_name(cut, sizeof cut);
    assert_true(whole[0] != '\0' && !strchr(whole, '\n'));
    assert_true(strlen(cut) <= 5 && strncmp(whole, cut, strlen(cut)) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wider_instructions_imply_the_narrower_ones),
        cmocka_unit_test(there_is_at_least_one_core),
        cmocka_unit_test(a_mask_has_the_cores_and_only_those),
        cmocka_unit_test(a_long_model_name_is_cut_and_terminated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
