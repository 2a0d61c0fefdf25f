#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/probe.h"

enum { WIDTH = 64, DIM = 16 };

/* The least that model/arch.c lets a feed-forward layer have, and one that is no multiple of what is read at a
 * time.
 */
static void models_of_any_width_are_measured(void **state)
{
    (void)state;
    static const float weights[200 * WIDTH];
    const int64_t ffns[] = {16, 63, 64, 200};
    for (size_t i = 0; i < sizeof ffns / sizeof *ffns; i++) {
        const int64_t ffn = ffns[i];
        const struct tensor matrix = {"gate", TENSOR_F32, 2, {WIDTH, ffn, 1, 1}, weights, sizeof weights};
        struct layer layer = {.stacks = {[LINEAR_GATE_UP] = {{&matrix, &matrix}, 2, WIDTH, 2 * ffn}}};
        const struct model model = {.shape = {.layers = 1, .width = WIDTH, .ffn = (int)ffn, .dim = DIM},
                                    .layers = &layer};
        const struct probe_options options = {.model = &model, .dtype = DTYPE_F32, .threads = 1};
        struct probe_rates rates;
        struct error err;
        assert_int_equal(probe_rates(&options, &rates, &err), 0);
        assert_true(rates.linear > 0 && rates.attention > 0 && rates.search > 0 && rates.decode > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_of_any_width_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
