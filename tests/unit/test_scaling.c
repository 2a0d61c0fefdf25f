/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "model/scaling.h"

/* Metadata of a llama with a context of 32768, to which a test adds its own. */
enum { MAX_VALUES = 8, CONTEXT = 32768 };
struct file {
    struct value values[MAX_VALUES];
    struct bundle bundle;
};

static struct value *add(struct file *file, const char *key)
{
    struct value *value = &file->values[file->bundle.n_values++];
    *value = (struct value){.key = key, .count = 1};
    return value;
}

static void add_int(struct file *file, const char *key, int64_t integer)
{
    struct value *value = add(file, key);
    value->kind = VALUE_INT;
    value->integer = integer;
}

static void add_real(struct file *file, const char *key, double real)
{
    struct value *value = add(file, key);
    value->kind = VALUE_FLOAT;
    value->real = real;
}

static void add_string(struct file *file, const char *key, const char *string)
{
    struct value *value = add(file, key);
    value->kind = VALUE_STRING;
    value->string = (struct text){string, strlen(string)};
}

static void begin(struct file *file)
{
    *file = (struct file){.bundle = {.path = "x.gguf"}};
    file->bundle.values = file->values;
    add_string(file, "general.architecture", "llama");
    add_int(file, "llama.context_length", CONTEXT);
}

static struct scaling read(const struct file *file, bool has_factors)
{
    struct error err = {0};
    struct scaling scaling;
    if (scaling_read(arch_find(&file->bundle, &err), &file->bundle, has_factors, &scaling, &err) != 0)
        fail_msg("%s", err.text);
    return scaling;
}

static void assert_refused(const struct file *file, bool has_factors, const char *why)
{
    struct error err = {0};
    struct scaling scaling;
    assert_int_equal(scaling_read(arch_find(&file->bundle, &err), &file->bundle, has_factors, &scaling, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" says nothing of \"%s\"", err.text, why);
}

static void a_file_that_says_nothing_has_no_method(void **state)
{
    (void)state;
    struct file file;
    begin(&file);
    const struct scaling scaling = read(&file, false);
    assert_int_equal(scaling.method.kind, POSITION_NONE);
    assert_int_equal(scaling.method.trained, CONTEXT);
    assert_int_equal(scaling.context, CONTEXT);
}

static void a_factor_without_a_type_is_linear_and_within_the_context(void **state)
{
    (void)state;
    struct file file;
    begin(&file);
    add_real(&file, "llama.rope.scaling.factor", 4);
    const struct scaling scaling = read(&file, false);
    assert_int_equal(scaling.method.kind, POSITION_PI);
    assert_true(scaling.method.factor == 4);
    assert_int_equal(scaling.context, CONTEXT);
}

static void yarn_reaches_the_factor_times_the_length_before_it(void **state)
{
    (void)state;
    struct file file;
    begin(&file);
    add_string(&file, "llama.rope.scaling.type", "yarn");
    add_real(&file, "llama.rope.scaling.factor", 4);
    add_int(&file, "llama.rope.scaling.original_context_length", CONTEXT);
    add_real(&file, "llama.rope.scaling.yarn_beta_fast", 16);
    const struct scaling scaling = read(&file, false);
    assert_int_equal(scaling.method.kind, POSITION_YARN);
    assert_int_equal(scaling.context, 4 * CONTEXT);
    assert_true(scaling.method.beta_fast == 16 && scaling.method.beta_slow == 1);
    assert_true(fabs(position_method_attention_factor(&scaling.method) - (0.1 * log(4) + 1)) < 1e-12);
}

static void an_attention_factor_multiplies_the_temperature_of_yarn(void **state)
{
    (void)state;
    struct file file;
    begin(&file);
    add_string(&file, "llama.rope.scaling.type", "yarn");
    add_real(&file, "llama.rope.scaling.factor", 4);
    add_real(&file, "llama.rope.scaling.attn_factor", 0.5);
    add_real(&file, "llama.rope.scaling.yarn_log_multiplier", 0.7);
    const struct scaling scaling = read(&file, false);
    const double own = (0.1 * log(4) + 1) / (0.07 * log(4) + 1);
    assert_true(fabs(position_method_attention_factor(&scaling.method) - 0.5 * own) < 1e-12);
}

/* llama.cpp turns with it whatever the type is. */
static void an_attention_factor_counts_without_yarn(void **state)
{
    (void)state;
    struct file file;
    begin(&file);
    add_string(&file, "llama.rope.scaling.type", "linear");
    add_real(&file, "llama.rope.scaling.factor", 4);
    add_real(&file, "llama.rope.scaling.attn_factor", 1.5);
    add_real(&file, "llama.rope.scaling.yarn_attn_factor", 0.5);
    struct scaling scaling = read(&file, false);
    assert_int_equal(scaling.method.kind, POSITION_PI);
    assert_true(position_method_attention_factor(&scaling.method) == 0.75);
    begin(&file);
    add_real(&file, "llama.rope.scaling.attn_factor", 1.25);
    scaling = read(&file, false);
    assert_int_equal(scaling.method.kind, POSITION_NONE);
    assert_true(position_method_attention_factor(&scaling.method) == 1.25);
}

static void the_factor_of_longrope_follows_from_the_lengths(void **state)
{
    (void)state;
    struct file file;
    begin(&file);
    add_int(&file, "llama.rope.scaling.original_context_length", 4096);
    add_real(&file, "llama.rope.scaling.attn_factor", 1.19);
    const struct scaling scaling = read(&file, true);
    assert_int_equal(scaling.method.kind, POSITION_LONGROPE);
    assert_int_equal(scaling.method.trained, 4096);
    assert_true(scaling.method.factor == 8);
    assert_int_equal(scaling.context, CONTEXT);
    assert_true(position_method_attention_factor(&scaling.method) == 1.19);
}

static void what_is_unknown_or_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct file file;
    begin(&file);
    add_string(&file, "llama.rope.scaling.type", "su");
    assert_refused(&file, false, "\"su\"");
    begin(&file);
    add_string(&file, "llama.rope.scaling.type", "longrope");
    assert_refused(&file, false, "no tensor rope_factors_long.weight");
    begin(&file);
    add_string(&file, "llama.rope.scaling.type", "yarn");
    assert_refused(&file, true, "a tensor rope_factors_long.weight");
    add_real(&file, "llama.rope.scaling.yarn_ext_factor", 0.5);
    assert_refused(&file, false, "yarn_ext_factor is 0.5");
    begin(&file);
    add_real(&file, "llama.rope.scaling.factor", -2);
    assert_refused(&file, false, "rope.scaling.factor is -2");
    begin(&file);
    add_int(&file, "llama.rope.scaling.original_context_length", 0);
    assert_refused(&file, false, "original_context_length is 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_says_nothing_has_no_method),
        cmocka_unit_test(a_factor_without_a_type_is_linear_and_within_the_context),
        cmocka_unit_test(yarn_reaches_the_factor_times_the_length_before_it),
        cmocka_unit_test(an_attention_factor_multiplies_the_temperature_of_yarn),
        cmocka_unit_test(an_attention_factor_counts_without_yarn),
        cmocka_unit_test(the_factor_of_longrope_follows_from_the_lengths),
        cmocka_unit_test(what_is_unknown_or_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
