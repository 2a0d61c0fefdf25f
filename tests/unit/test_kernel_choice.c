/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "attention/kernel.h"

static void a_kernel_is_chosen_by_dtype_or_by_name(void **state)
{
    (void)state;
    for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        struct error err = {0};
        const struct attn_kernel *kernel = attn_kernel_choose(dtype, NULL, &err);
        assert_non_null(kernel);
        assert_true(kernel->dtype == dtype && kernel->supported());
        assert_ptr_equal(attn_kernel_choose(dtype, kernel->name, &err), kernel);
        assert_ptr_equal(attn_kernel_choose(dtype, NULL, &err), kernel);
        print_message("%s: %s\n", dtype_name(dtype), kernel->name);
    }
}

/* What ranks of different CPUs go by: the slowest one's kernel is one that all have. */
static void a_cpu_that_can_run_a_kernel_can_run_those_behind_it(void **state)
{
    (void)state;
    int n;
    const struct attn_kernel *const *kernels = attn_kernels(&n);
    for (int i = 0; i < n; i++)
        for (int behind = i + 1; behind < n; behind++)
            if (kernels[i]->dtype == kernels[behind]->dtype && kernels[i]->supported())
                assert_true(kernels[behind]->supported());
}

static void a_kernel_that_cannot_be_had_is_refused_by_name(void **state)
{
    (void)state;
    struct error err = {0};
    assert_null(attn_kernel_choose(DTYPE_F32, "abacus", &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.text, "abacus"));
    assert_null(attn_kernel_choose(DTYPE_BF16, "c-f32", &err));
    assert_int_equal(err.code, ERROR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_is_chosen_by_dtype_or_by_name),
        cmocka_unit_test(a_cpu_that_can_run_a_kernel_can_run_those_behind_it),
        cmocka_unit_test(a_kernel_that_cannot_be_had_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
