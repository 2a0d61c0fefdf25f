/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/model.h"

/* The metadata of a model file, to which a test adds its own. */
enum { MAX_VALUES = 16, KEY_SIZE = 64 };
struct file {
    const char *arch;
    char keys[MAX_VALUES][KEY_SIZE];
    struct value values[MAX_VALUES];
    struct bundle bundle;
};

static struct value *add(struct file *file, const char *name)
{
    char *key = file->keys[file->bundle.n_values];
    struct value *value = &file->values[file->bundle.n_values++];
    snprintf(key, KEY_SIZE, "%s%s", name[0] == '.' ? file->arch : "", name);
    value->key = key;
    value->count = 1;
    return value;
}

static void add_int(struct file *file, const char *name, int64_t integer)
{
    struct value *value = add(file, name);
    value->kind = VALUE_INT;
    value->integer = integer;
}

static void add_real(struct file *file, const char *name, double real)
{
    struct value *value = add(file, name);
    value->kind = VALUE_FLOAT;
    value->real = real;
}

static void begin(struct file *file, const char *arch, int layers)
{
    *file = (struct file){.arch = arch, .bundle = {.path = "x.gguf"}};
    file->bundle.values = file->values;
    struct value *value = add(file, "general.architecture");
    value->kind = VALUE_STRING;
    value->string = (struct text){arch, strlen(arch)};
    add_int(file, ".block_count", layers);
    add_int(file, ".embedding_length", 5376);
    add_int(file, ".feed_forward_length", 21504);
    add_int(file, ".attention.head_count", 32);
    add_int(file, ".attention.key_length", 128);
    add_int(file, ".context_length", 32768);
}

/* The model's arch and shape, as far as model_layer_is_local looks. */
static struct model read(struct file *file)
{
    struct error err;
    struct model model = {.arch = arch_find(&file->bundle, &err)};
    assert_non_null(model.arch);
    assert_int_equal(model_shape_read(model.arch, &file->bundle, &model.shape, &err), 0);
    return model;
}

static void assert_refused(struct file *file, const char *why)
{
    struct error err;
    struct model_shape shape;
    const struct arch *arch = arch_find(&file->bundle, &err);
    assert_non_null(arch);
    assert_int_equal(model_shape_read(arch, &file->bundle, &shape, &err), -1);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" says nothing of \"%s\"", err.text, why);
}

static void a_llama_without_a_window_has_no_local_layers(void **state)
{
    (void)state;
    struct file file;
    begin(&file, "llama", 32);
    const struct model model = read(&file);
    assert_int_equal(model.shape.window, 0);
    for (int layer = 0; layer < 32; layer++)
        assert_false(model_layer_is_local(&model, layer));
}

static void a_window_in_the_file_of_a_llama_makes_all_layers_local(void **state)
{
    (void)state;
    struct file file;
    begin(&file, "llama", 32);
    add_int(&file, ".attention.sliding_window", 4096);
    const struct model model = read(&file);
    assert_int_equal(model.shape.window, 4096);
    for (int layer = 0; layer < 32; layer++)
        assert_true(model_layer_is_local(&model, layer));
    assert_true(model.shape.local_rope_base == 0);
}

static void every_sixth_layer_of_gemma3_is_global_and_has_its_own_rope(void **state)
{
    (void)state;
    struct file file;
    begin(&file, "gemma3", 18);
    add_int(&file, ".attention.sliding_window", 512);
    add_real(&file, ".rope.freq_base", 1e6);
    const struct model model = read(&file);
    for (int layer = 0; layer < 18; layer++)
        assert_int_equal(model_layer_is_local(&model, layer), layer != 5 && layer != 11 && layer != 17);
    assert_true(model_rope_options(&model, 100).base == 1e6);
    assert_true(model_local_rope_options(&model, 100).base == 1e4);
    assert_true(fabs(model.shape.attention_scale - 1 / sqrt(128)) < 1e-12);
    assert_true(fabsf(model.shape.embedding_scale - sqrtf(5376)) < 1e-6F);
}

static void a_file_may_name_its_own_pattern_and_local_rope(void **state)
{
    (void)state;
    struct file file;
    begin(&file, "gemma3", 4);
    add_int(&file, ".attention.sliding_window", 512);
    add_int(&file, ".attention.sliding_window_pattern", 2);
    add_real(&file, ".rope.freq_base_swa", 5e3);
    const struct model model = read(&file);
    assert_true(model_layer_is_local(&model, 0) && model_layer_is_local(&model, 2));
    assert_false(model_layer_is_local(&model, 1) || model_layer_is_local(&model, 3));
    assert_true(model_local_rope_options(&model, 100).base == 5e3);
}

static void the_27b_gemma3_divides_by_the_width_of_a_head(void **state)
{
    (void)state;
    struct file file;
    begin(&file, "gemma3", 62);
    add_int(&file, ".attention.sliding_window", 1024);
    assert_true(fabs(read(&file).shape.attention_scale - 1 / sqrt(168)) < 1e-12);
}

static void a_gemma3_without_a_window_is_refused(void **state)
{
    (void)state;
    struct file file;
    begin(&file, "gemma3", 18);
    assert_refused(&file, "gemma3.attention.sliding_window is missing");
}

static void capped_logits_are_refused(void **state)
{
    (void)state;
    struct file file;
    begin(&file, "gemma3", 18);
    add_int(&file, ".attention.sliding_window", 512);
    add_real(&file, ".final_logit_softcapping", 30);
    assert_refused(&file, "final_logit_softcapping is 30");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_llama_without_a_window_has_no_local_layers),
        cmocka_unit_test(a_window_in_the_file_of_a_llama_makes_all_layers_local),
        cmocka_unit_test(every_sixth_layer_of_gemma3_is_global_and_has_its_own_rope),
        cmocka_unit_test(a_file_may_name_its_own_pattern_and_local_rope),
        cmocka_unit_test(the_27b_gemma3_divides_by_the_width_of_a_head),
        cmocka_unit_test(a_gemma3_without_a_window_is_refused),
        cmocka_unit_test(capped_logits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
