/* A plan where text does not become tokens: this program's calls of tokenizer_encode come by
 * __wrap_tokenizer_encode (tests/CMakeLists.txt). */
/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "pipeline/plan.h"

static enum error_code failure;
static struct options options;
static struct opened_model opened;
static struct corpus *corpus;
static struct error err;

int __wrap_tokenizer_encode(const struct tokenizer *tokenizer, struct text text, struct token_list *out,
                            struct error *error);
int __wrap_tokenizer_encode(const struct tokenizer *tokenizer, struct text text, struct token_list *out,
                            struct error *error)
{
    (void)tokenizer, (void)text, (void)out;
    return error_set(error, failure, "it cannot be");
}

static int open_all(void **state)
{
    static char *words[] = {"longhaul",
                            "score",
                            TEST_DATA_DIR "/reference/texts/prose.txt",
                            "-m",
                            TEST_DATA_DIR "/data/tiny/llama-tied-f32.gguf",
                            "--threads",
                            "1",
                            "--dry-run"};
    (void)state;
    if (options_parse(&options, sizeof words / sizeof *words, words, &err) != 0 ||
        opened_model_open(&opened, &options, &err) != 0 || !(corpus = plan_corpus(&options, &err)))
        fail_msg("%s", err.text);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    corpus_free(corpus);
    opened_model_close(&opened);
    options_free(&options);
    return 0;
}

static struct plan *plan_after(enum error_code code)
{
    const struct plan_around around = {.ranks = 1, .place = place_for_ranks(&options, 1), .corpus = corpus};
    failure = code;
    return plan_create(&options, &opened, &around, &err);
}

static void a_text_that_cannot_be_tokens_fails_its_document(void **state)
{
    (void)state;
    struct plan *plan = plan_after(ERROR_INPUT);
    assert_non_null(plan);
    assert_int_equal(plan->documents[0].status, RESULT_FAILED);
    assert_string_equal(plan->documents[0].reason, "it cannot be");
    plan_free(plan);
}

/* Recorded with the document, it would stay there when there is memory again. */
static void a_lack_of_memory_ends_the_run(void **state)
{
    (void)state;
    assert_null(plan_after(ERROR_RESOURCE));
    assert_int_equal(err.code, ERROR_RESOURCE);
    assert_string_equal(err.text, "prose.txt: it cannot be");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_that_cannot_be_tokens_fails_its_document),
        cmocka_unit_test(a_lack_of_memory_ends_the_run),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
