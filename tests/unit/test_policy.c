/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/policy.h"

enum { LONG = 1 << 20, SEGMENT = 2048 };

static struct policy_spec spec_of(const char *text)
{
    struct error err = {0};
    struct policy_spec spec;
    if (policy_parse(text, &spec, &err) != 0)
        fail_msg("%s", err.text);
    return spec;
}

/* In the last segment of a long text. */
static int64_t reach_of(const char *text)
{
    const struct policy_spec spec = spec_of(text);
    return policy_reach(&spec, LONG - SEGMENT, LONG);
}

static void positions_are_counted_inside_what_is_seen(void **state)
{
    (void)state;
    assert_int_equal(reach_of("full"), LONG);
    assert_int_equal(reach_of("window:window=100"), 100);
    assert_int_equal(reach_of("sinks:window=100,sinks=4"), 104);
    assert_int_equal(reach_of("retrieval:window=380,sinks=4,top=12"), 4 + 12 * 32 + 31 + 380 + 128);
    assert_int_equal(reach_of("h2o:window=100,slots=50"), 50 + 100 + SEGMENT);
    assert_int_equal(reach_of("snapkv:window=100,slots=50"), 50 + 100 + SEGMENT);
    assert_int_equal(reach_of("compressive:window=100,slots=50,rate=4"), 50 + 3 + 100 + SEGMENT);
    assert_int_equal(reach_of("memory:window=100,memory=5000"), 100 + SEGMENT);
    assert_int_equal(reach_of("infllm:window=100"), 101);
    assert_int_equal(reach_of("landmark:token=0,block=64,top=5"), 7 * 64);
    assert_int_equal(reach_of("landmark:token=0,block=64,top=500,memory=1000"), 1000 + 63 + SEGMENT);
}

static void a_short_text_reaches_its_length(void **state)
{
    static const char *const policies[] = {"full",        "window", "sinks",  "retrieval", "memory",
                                           "compressive", "h2o",    "snapkv", "infllm",    "landmark:token=0"};
    (void)state;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        const struct policy_spec spec = spec_of(policies[i]);
        assert_int_equal(policy_reach(&spec, 0, 200), 200);
        assert_int_equal(policy_reach(&spec, 0, 1), 1);
    }
}

/* No query's near part begins further before it than policy_reach says, whatever the segments. */
static void near_parts_are_within_reach(void **state)
{
    static const char *const policies[] = {"window:window=70",
                                           "sinks:window=70,sinks=9",
                                           "retrieval:window=70,sinks=300,top=1",
                                           "compressive:window=70,rate=7,slots=3",
                                           "h2o:window=70,slots=3",
                                           "memory:window=70,memory=3"};
    (void)state;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        const struct policy_spec spec = spec_of(policies[i]);
        for (int64_t first = 0; first < 1500; first += 150)
            for (int64_t p = first; p < first + 150; p++)
                assert_true(p + 1 - policy_near_first(&spec, p, first) <= policy_reach(&spec, first, first + 150));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions_are_counted_inside_what_is_seen),
        cmocka_unit_test(a_short_text_reaches_its_length),
        cmocka_unit_test(near_parts_are_within_reach),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
