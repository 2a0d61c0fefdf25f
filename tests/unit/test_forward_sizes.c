/* The memory of a rank has room for its tokens wherever prefill ends: in whole segments, one broken off, and what
 * is dealt behind them. */
/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/forward_attention_parts.h"

static const struct job {
    int ranks;
    int64_t segment, max_tokens, max_generated;
} jobs[] = {{1, 100, 1000, 50},       {2, 100, 1536, 186},    {2, 300, 4731, 2706},  {3, 128, 5000, 5000},
            {4, 2048, 20000, 200},    {6, 500, 2946, 1696},   {8, 1000, 7813, 2313}, {8, 2048, 100000, 0},
            {7, 16384, 200000, 1000}, {5, 16384, 9000, 9000}, {2, 100, 30, 10}};

enum { N_JOBS = sizeof jobs / sizeof jobs[0] };

static struct error err;

static int64_t capacity_of(const struct job *job)
{
    const struct comm group = {MPI_COMM_NULL, 0, job->ranks};
    const struct model model = {.shape = {.layers = 2, .kv_heads = 1, .dim = 64}};
    const struct attn_kernel *kernel = attn_kernel_choose(DTYPE_F32, NULL, &err);
    assert_non_null(kernel);
    const struct forward_options options = {.model = &model,
                                            .group = &group,
                                            .device = device_cpu(),
                                            .kernel = kernel,
                                            .segment = job->segment,
                                            .max_tokens = job->max_tokens,
                                            .max_generated = job->max_generated};
    return forward_attention_memory_shape(&options, ATTENTION_FULL).capacity;
}

/* The most that a rank holds where `prompt` tokens are prefilled and the rest is dealt, as far as it may be. */
static int64_t most_held(const struct job *job, int64_t prompt)
{
    const int64_t generated = i64_min(job->max_generated, job->max_tokens - prompt);
    int64_t most = 0;
    for (int rank = 0; rank < job->ranks; rank++) {
        int64_t held = generated / job->ranks + (rank < generated % job->ranks);
        for (int64_t first = 0; first < prompt; first += job->segment) {
            const struct zigzag z = zigzag_block(first, i64_min(first + job->segment, prompt), rank, job->ranks);
            held += z.end[0] - z.first[0] + z.end[1] - z.first[1];
        }
        most = i64_max(most, held);
    }
    return most;
}

/* The most that any rank holds, whatever the prompt. */
static int64_t most_of_all(const struct job *job)
{
    const int64_t step = i64_max(1, job->max_tokens / 500);
    int64_t most = 0;
    for (int64_t prompt = 1; prompt <= job->max_tokens; prompt += step)
        most = i64_max(most, most_held(job, prompt));
    return most;
}

static void every_prompt_and_answer_fits(void **state)
{
    (void)state;
    for (int i = 0; i < N_JOBS; i++)
        if (most_of_all(&jobs[i]) > capacity_of(&jobs[i]))
            fail_msg("job %d: %d tokens on a rank with room for %d", i, (int)most_of_all(&jobs[i]),
                     (int)capacity_of(&jobs[i]));
}

static void room_is_not_wasted(void **state)
{
    (void)state;
    for (int i = 0; i < N_JOBS; i++)
        assert_true(capacity_of(&jobs[i]) <=
                    most_of_all(&jobs[i]) + i64_min(jobs[i].segment, jobs[i].max_tokens) + 4 * ZIGZAG_GRAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_prompt_and_answer_fits),
        cmocka_unit_test(room_is_not_wasted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
