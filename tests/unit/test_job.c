#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/job.h"
#include "pipeline/work.h"
#include "toy_tokenizer.h"

/* What another rank takes out of the message; `bytes` fewer than it has. */
static int carry(const struct job_result *result, size_t fewer, struct job_result *out, struct error *err)
{
    size_t bytes;
    void *message = job_result_to_message(result, &bytes);
    assert_non_null(message);
    const int status = job_result_from_message(message, bytes - fewer, out, err);
    free(message);
    return status;
}

static void a_job_comes_back_with_its_tokens(void **state)
{
    (void)state;
    int32_t tokens[] = {5, -1, 70000};
    const struct job job = {.id = (INT64_C(7) << 32) | 3,
                            .kind = JOB_SCORE,
                            .n_tokens = 3,
                            .tokens = tokens,
                            .setting = 1,
                            .probes = 64};
    struct job out;
    struct error err = {0};
    size_t bytes;
    void *message = job_to_message(&job, &bytes);
    assert_int_equal(job_from_message(message, bytes, &out, &err), 0);
    assert_true(out.id == job.id && out.kind == JOB_SCORE && out.n_tokens == 3 && out.setting == 1 &&
                out.probes == 64);
    assert_true(out.tokens != tokens);
    assert_memory_equal(out.tokens, tokens, sizeof tokens);
    job_free(&out);
    free(message);
}

static void a_job_to_stop_has_no_tokens(void **state)
{
    (void)state;
    const struct job stop = {.kind = JOB_STOP};
    struct job out;
    struct error err = {0};
    size_t bytes;
    void *message = job_to_message(&stop, &bytes);
    assert_int_equal(job_from_message(message, bytes, &out, &err), 0);
    assert_true(out.kind == JOB_STOP && out.tokens == NULL);
    free(message);
}

static void a_result_comes_back_with_the_arrays_it_has(void **state)
{
    (void)state;
    float logprob[] = {-1.5f, -0.25f};
    int32_t top1[] = {9, 8};
    const struct job_result result = {
        .id = 4, .kind = JOB_SCORE, .count = 2, .logprob = logprob, .top1 = top1, .receipt.memory.tokens = 3};
    struct job_result out;
    struct error err = {0};
    assert_int_equal(carry(&result, 0, &out, &err), 0);
    assert_true(out.id == 4 && out.kind == JOB_SCORE && out.count == 2 && out.receipt.memory.tokens == 3);
    assert_memory_equal(out.logprob, logprob, sizeof logprob);
    assert_memory_equal(out.top1, top1, sizeof top1);
    assert_null(out.tokens);
    assert_null(out.reference_logprob);
    job_result_free(&out);
}

static void arrays_without_elements_are_still_there(void **state)
{
    (void)state;
    float logprob[1], reference[1];
    int32_t top1[1];
    const struct job_result result = {
        .kind = JOB_SCORE, .logprob = logprob, .top1 = top1, .reference_logprob = reference};
    struct job_result out;
    struct error err = {0};
    assert_int_equal(carry(&result, 0, &out, &err), 0);
    assert_int_equal(out.count, 0);
    assert_true(out.logprob && out.top1 && out.reference_logprob && !out.tokens);
    job_result_free(&out);
}

static void a_message_cut_short_is_refused(void **state)
{
    (void)state;
    int32_t tokens[] = {1, 2};
    const struct job_result result = {.kind = JOB_GENERATE, .count = 2, .tokens = tokens};
    struct job_result out;
    struct error err = {0};
    for (size_t fewer = 1; fewer <= sizeof tokens + 1; fewer++) {
        assert_int_equal(carry(&result, fewer, &out, &err), -1);
        assert_int_equal(err.code, ERROR_INTERNAL);
    }
}

/* Without BOS the only token of a document has no prediction, and its arrays come from another rank. */
static void a_document_of_one_token_is_scored_with_no_predictions(void **state)
{
    (void)state;
    struct chunk chunk = {.end_token = 1};
    struct node node = {.kind = RESULT_MAP};
    struct work work = {
        .chunks = {.count = 1, .items = &chunk}, .n_nodes = 1, .nodes = &node, .open = 1, .score_end = 1};
    const struct work_limits limits = {.max_new = 200};
    float logprob[1];
    int32_t top1[1];
    const struct job_result sent = {.kind = JOB_SCORE, .logprob = logprob, .top1 = top1};
    struct job_result result;
    struct error err = {0};
    assert_int_equal(carry(&sent, 0, &result, &err), 0);
    assert_int_equal(work_give(&work, 0, &limits, &result, &err), 0);
    assert_false(work.failed);
    assert_true(work_over(&work) && work.n_nodes == 1 && work.score_first == 1);
    job_result_free(&result);
}

/* Before any of its chunks is read, and only where there are several. */
static void summaries_that_cannot_be_put_together_fail_the_plan(void **state)
{
    (void)state;
    enum { TOKENS = 200, MAX_NEW = 60 };
    static const struct {
        int64_t tokens, room;
        bool failed;
    } cases[] = {{TOKENS, 2 * (MAX_NEW + 4) - 1, true},
                 {TOKENS, 2 * (MAX_NEW + 4), false},
                 {TOKENS / 2, 2 * (MAX_NEW + 4) - 1, false}};
    static char bytes[TOKENS];
    int64_t ends[TOKENS];
    memset(bytes, 'a', sizeof bytes);
    for (int64_t i = 0; i < TOKENS; i++)
        ends[i] = i + 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct work_limits limits = {
            .max_new = MAX_NEW, .room = {[ROLE_WHOLE] = 100, [ROLE_MAP] = 100, [ROLE_REDUCE] = cases[i].room}};
        const struct chunk_text text = {bytes, cases[i].tokens, ends};
        struct error err = {0};
        struct work work;
        work_init(&work, calloc(TOKENS, sizeof(int32_t)), cases[i].tokens);
        assert_int_equal(work_plan(&work, &task_summarize, &limits, &text, &err), 0);
        assert_int_equal(work.failed, cases[i].failed);
        assert_string_equal(work.failure.text,
                            cases[i].failed ? "summaries of 60 tokens cannot be put together in a room of 127"
                                            : "");
        assert_int_equal(work.n_nodes == 0, cases[i].failed);
        work_clear(&work);
    }
}

/* Summaries of three chunks, put together under a prompt of the user's. */
static void a_reduction_speaks_of_all_parts(void **state)
{
    (void)state;
    static struct toy toy;
    struct error err = {0};
    toy_start(&toy, "gpt-2");
    toy_finish(&toy);
    struct tokenizer *tokenizer = tokenizer_create(&toy.bundle, &err);
    assert_non_null(tokenizer);
    const struct prompter prompter = {&task_summarize, tokenizer, CHAT_PLAIN, "{part} of {parts}."};
    int32_t answer[] = {'a'};
    struct node nodes[4] = {[3] = {.role = ROLE_REDUCE, .chunk = -1, .end_child = 3}};
    for (int i = 0; i < 3; i++)
        nodes[i] = (struct node){.chunk = i, .n_tokens = 1, .tokens = answer};
    struct work work = {.chunks.count = 3, .n_nodes = 4, .nodes = nodes};
    struct job job = {0};
    assert_int_equal(work_take(&work, 3, &prompter, &job, &err), 0);
    const char wanted[] = "3 of 3.";
    const int64_t n = sizeof wanted - 1;
    assert_true(job.n_tokens > n);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(job.tokens[job.n_tokens - n + i], wanted[i]);
    job_free(&job);
    tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_comes_back_with_its_tokens),
        cmocka_unit_test(a_job_to_stop_has_no_tokens),
        cmocka_unit_test(a_result_comes_back_with_the_arrays_it_has),
        cmocka_unit_test(arrays_without_elements_are_still_there),
        cmocka_unit_test(a_message_cut_short_is_refused),
        cmocka_unit_test(a_document_of_one_token_is_scored_with_no_predictions),
        cmocka_unit_test(summaries_that_cannot_be_put_together_fail_the_plan),
        cmocka_unit_test(a_reduction_speaks_of_all_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
