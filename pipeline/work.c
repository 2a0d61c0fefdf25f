#include "pipeline/work.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

const char *strategy_name(enum strategy strategy)
{
    static const char *const names[] = {"auto", "whole", "map-reduce", "refine"};
    return names[strategy];
}

void work_init(struct work *work, int32_t *tokens, int64_t n_tokens)
{
    *work = (struct work){.tokens = tokens, .n_tokens = n_tokens};
}

void work_clear(struct work *work)
{
    for (int64_t i = 0; i < work->n_nodes; i++)
        free(work->nodes[i].tokens);
    free(work->nodes);
    free(work->tokens);
    free(work->logprob);
    free(work->top1);
    free(work->reference_logprob);
    free(work->receipts);
    chunk_list_free(&work->chunks);
    *work = (struct work){0};
}

size_t work_bytes(const struct work *work)
{
    const size_t of_score = (work->logprob ? sizeof *work->logprob + sizeof *work->top1 : 0) +
                            (work->reference_logprob ? sizeof *work->reference_logprob : 0);
    return (size_t)work->n_tokens * sizeof *work->tokens + (size_t)work->score_end * of_score;
}

static int64_t node_add(struct work *work, const struct node *node, struct error *err)
{
    if (work->n_nodes == work->capacity) {
        int64_t capacity = work->capacity ? 2 * work->capacity : 8;
        struct node *nodes = realloc(work->nodes, (size_t)capacity * sizeof *nodes);
        if (!nodes)
            return error_set(err, ERROR_RESOURCE, "no memory for %lld generations", (long long)capacity);
        work->nodes = nodes;
        work->capacity = capacity;
    }
    work->nodes[work->n_nodes] = *node;
    work->open++;
    return work->n_nodes++;
}

/* ---- planning ---- */

/* In tokens: the least material that is worth its prompt; about what stands between two answers. */
enum { LEAST_ROOM = 16, BETWEEN_ANSWERS = 4 };

/* The role whose prompt a chunk's material has to fit. */
static enum prompt_role chunk_role(enum strategy strategy)
{
    return strategy == STRATEGY_WHOLE ? ROLE_WHOLE : strategy == STRATEGY_REFINE ? ROLE_REFINE : ROLE_MAP;
}

/* Tokens of an answer and what stands between two of them. */
static int64_t answer_tokens(const struct work_limits *limits)
{
    return limits->max_new + BETWEEN_ANSWERS;
}

/* How many answers a reduction takes; work_plan sees to it that there are two at least. */
static int64_t reduction_fit(const struct work_limits *limits)
{
    return limits->room[ROLE_REDUCE] / answer_tokens(limits);
}

/* Whether the document can be done under these limits; where not, work->failure has the reason. */
static bool can_be_done(struct work *work, const struct task *task, const struct work_limits *limits, int64_t room)
{
    struct error *failure = &work->failure;
    const int64_t tokens = work->n_tokens - work->dropped;
    const bool reduces = task->job == JOB_GENERATE && work->strategy == STRATEGY_MAP_REDUCE && tokens > room;
    int status = 0;
    if (work->strategy == STRATEGY_WHOLE && tokens > room)
        status = error_set(failure, ERROR_INPUT,
                           "%" PRId64 " tokens are more than the %" PRId64 " that fit the context as a whole",
                           tokens, room);
    else if (room < LEAST_ROOM)
        status = error_set(failure, ERROR_USAGE,
                           "a context of %" PRId64 " tokens leaves %" PRId64 " beside the prompt and the answer",
                           limits->context, room);
    else if (limits->overlap_asked && tokens > room && limits->overlap >= room / 2)
        status = error_set(failure, ERROR_USAGE,
                           "an overlap of %" PRId64 " tokens is not less than half of a chunk of %" PRId64,
                           limits->overlap, room);
    else if (reduces && reduction_fit(limits) < 2)
        status = error_set(failure, ERROR_USAGE,
                           "summaries of %" PRId64 " tokens cannot be put together in a room of %" PRId64,
                           limits->max_new, limits->room[ROLE_REDUCE]);
    work->failed = status != 0;
    return status == 0;
}

/* Settles strategy, chunk length and, where the user allows it, how much is left out. */
static int64_t choose(struct work *work, const struct task *task, const struct work_limits *limits)
{
    const int64_t whole = limits->room[ROLE_WHOLE];
    const bool fits = work->n_tokens <= whole && (limits->chunk == 0 || work->n_tokens <= limits->chunk);
    work->strategy = limits->strategy;
    if (limits->strategy == STRATEGY_AUTO)
        work->strategy = fits ? STRATEGY_WHOLE : STRATEGY_MAP_REDUCE;
    if (limits->truncate && work->n_tokens > whole) {
        work->dropped = work->n_tokens - whole;
        work->strategy = STRATEGY_WHOLE;
        return whole;
    }
    if (work->strategy == STRATEGY_WHOLE && limits->extends && work->n_tokens > whole) {
        work->setting = 1;
        return work->n_tokens;
    }
    if (work->strategy == STRATEGY_WHOLE)
        return whole;
    int64_t room = limits->room[task->job == JOB_SCORE ? ROLE_WHOLE : chunk_role(work->strategy)];
    return limits->chunk > 0 && limits->chunk < room ? limits->chunk : room;
}

static int make_chunks(struct work *work, int64_t room, int64_t overlap, const struct chunk_text *text,
                       struct error *err)
{
    struct chunk_text part = *text;
    part.n_tokens = work->n_tokens - work->dropped;
    struct chunk_limits limits = {.max_tokens = room, .overlap = overlap};
    if (limits.overlap >= room / 2) /* the built-in overlap gives way to small chunks */
        limits.overlap = room / 8;
    return chunk_cut(&part, &limits, &work->chunks, err);
}

static int first_nodes(struct work *work, const struct task *task, struct error *err)
{
    const bool refine = work->strategy == STRATEGY_REFINE && work->chunks.count > 1;
    for (int64_t i = 0; i < work->chunks.count; i++) {
        const bool last = i == work->chunks.count - 1;
        struct node node = {.state = NODE_READY, .parent = -1, .chunk = i, .role = ROLE_MAP, .kind = RESULT_MAP};
        if (work->chunks.count == 1 && task->job == JOB_GENERATE) {
            node.role = ROLE_WHOLE;
            node.kind = RESULT_FINAL;
        } else if (refine) {
            node.role = i == 0 ? ROLE_MAP : ROLE_REFINE;
            node.kind = last ? RESULT_FINAL : RESULT_REFINE;
            node.state = i == 0 ? NODE_READY : NODE_WAITING;
            node.parent = last ? -1 : i + 1;
            node.level = i;
        }
        if (node_add(work, &node, err) < 0)
            return -1;
    }
    return 0;
}

/* Once for a document, on as many tokens as the untouched model can read, too. */
void work_plan_receipt(struct work *work, const struct work_limits *limits)
{
    const int64_t n = i64_min(work->n_tokens - work->dropped, limits->receipt);
    work->receipt = (struct receipt){0};
    work->receipt_tokens = 0;
    if ((!limits->lossy && work->setting == 0) || n < 2)
        return;
    if (limits->intact[work->setting] + 1 >= n + limits->bos) { /* the last token predicts nothing */
        work->receipt.memory.tokens = n + limits->bos;
        return;
    }
    work->receipt_tokens = n;
    work->receipt_state = NODE_READY;
}

static int plan_score(struct work *work, bool compares, struct error *err)
{
    work->score_end = work->n_tokens - work->dropped;
    const size_t n = (size_t)work->score_end + 1;
    work->logprob = calloc(n, sizeof *work->logprob);
    work->top1 = calloc(n, sizeof *work->top1);
    work->reference_logprob = compares ? calloc(n, sizeof *work->reference_logprob) : NULL;
    work->receipts = compares ? calloc((size_t)work->chunks.count + 1, sizeof *work->receipts) : NULL;
    if (!work->logprob || !work->top1 || (compares && (!work->reference_logprob || !work->receipts)))
        return error_set(err, ERROR_RESOURCE, "no memory for %lld scores", (long long)work->score_end);
    return 0;
}

/* A chunk without BOS predicts all tokens but its first, which the chunk before has to end with. */
static int64_t choose_overlap(const struct task *task, const struct work_limits *limits)
{
    return task->job == JOB_SCORE && limits->bos == 0 ? i64_max(1, limits->overlap) : limits->overlap;
}

int work_plan(struct work *work, const struct task *task, const struct work_limits *limits,
              const struct chunk_text *text, struct error *err)
{
    int64_t room = choose(work, task, limits);
    if (!can_be_done(work, task, limits, room))
        return 0;
    if (make_chunks(work, room, choose_overlap(task, limits), text, err) != 0 || first_nodes(work, task, err) != 0)
        return -1;
    if (task->job == JOB_GENERATE)
        work_plan_receipt(work, limits);
    return task->job == JOB_SCORE ? plan_score(work, limits->compares, err) : 0;
}

/* ---- jobs out ---- */

int64_t work_ready(const struct work *work)
{
    for (int64_t i = 0; i < work->n_nodes && !work->failed; i++)
        if (work->nodes[i].state == NODE_READY)
            return i;
    return work->receipt_tokens > 0 && work->receipt_state == NODE_READY && !work->failed ? WORK_RECEIPT : -1;
}

bool work_over(const struct work *work)
{
    bool running = false, done = true;
    for (int64_t i = 0; i < work->n_nodes; i++) {
        running |= work->nodes[i].state == NODE_RUNNING;
        done &= work->nodes[i].state == NODE_DONE;
    }
    if (work->receipt_tokens > 0) {
        running |= work->receipt_state == NODE_RUNNING;
        done &= work->receipt_state == NODE_DONE;
    }
    return !running && (done || work->failed);
}

int64_t work_cost(const struct work *work, const struct work_limits *limits, int64_t node)
{
    if (node == WORK_RECEIPT)
        return work->receipt_tokens;
    const struct node *n = &work->nodes[node];
    if (n->chunk < 0)
        return (n->end_child - n->first_child) * limits->max_new;
    const struct chunk *chunk = &work->chunks.items[n->chunk];
    return chunk->end_token - chunk->first_token;
}

static int gather_answers(const struct work *work, const struct node *node, const struct prompter *prompter,
                          struct token_list *out, struct error *err)
{
    for (int64_t i = node->first_child; i < node->end_child; i++) {
        if (i > node->first_child && prompt_separate(prompter, out, err) != 0)
            return -1;
        const struct node *child = &work->nodes[i];
        if (token_list_reserve(out, child->n_tokens, err) != 0)
            return -1;
        for (int64_t t = 0; t < child->n_tokens; t++)
            if (token_list_append(out, child->tokens[t], out->text_bytes, err) != 0)
                return -1;
    }
    return 0;
}

static int compose(const struct work *work, const struct node *node, const struct prompter *prompter,
                   struct job *job, struct error *err)
{
    struct prompt_material material = {.part = node->chunk + 1, .parts = work->chunks.count};
    if (node->role == ROLE_REDUCE) {
        struct token_list answers = {0};
        material.part = material.parts;
        int status = gather_answers(work, node, prompter, &answers, err);
        material.tokens = answers.ids;
        material.n_tokens = answers.count;
        if (status == 0)
            status = prompt_compose(prompter, node->role, &material, job, err);
        token_list_free(&answers);
        return status;
    }
    const struct chunk *chunk = &work->chunks.items[node->chunk];
    material.tokens = work->tokens + chunk->first_token;
    material.n_tokens = chunk->end_token - chunk->first_token;
    if (node->role == ROLE_REFINE) {
        const struct node *before = node - 1;
        material.next = material.tokens;
        material.n_next = material.n_tokens;
        material.tokens = before->tokens;
        material.n_tokens = before->n_tokens;
    }
    return prompt_compose(prompter, node->role, &material, job, err);
}

/* The caller has said where its probes begin. */
static int take_receipt(struct work *work, const struct prompter *prompter, struct job *out, struct error *err)
{
    const struct prompt_material material = {.tokens = work->tokens, .n_tokens = work->receipt_tokens};
    if (prompt_bare(prompter, &material, out, err) != 0)
        return -1;
    out->setting = work->setting;
    work->receipt_state = NODE_RUNNING;
    return 0;
}

int work_take(struct work *work, int64_t node, const struct prompter *prompter, struct job *out, struct error *err)
{
    if (node == WORK_RECEIPT)
        return take_receipt(work, prompter, out, err);
    if (compose(work, &work->nodes[node], prompter, out, err) != 0)
        return -1;
    out->setting = work->setting;
    work->nodes[node].state = NODE_RUNNING;
    work->nodes[node].prompt_tokens = out->n_tokens;
    return 0;
}

/* ---- answers in ---- */

int64_t work_reduction_tokens(int64_t chunks, const struct work_limits *limits)
{
    return i64_min(chunks * answer_tokens(limits), limits->room[ROLE_REDUCE]);
}

/* Answers first .. end of one level are all there: put them together, as many in each reduction as fit. */
static int reduce_level(struct work *work, int64_t first, int64_t end, const struct work_limits *limits,
                        struct error *err)
{
    const int64_t level = work->nodes[first].level + 1;
    const int64_t fit = reduction_fit(limits);
    const int64_t groups = (end - first + fit - 1) / fit;
    for (int64_t g = 0; g < groups; g++) {
        struct node node = {.state = NODE_READY,
                            .kind = groups == 1 ? RESULT_FINAL : RESULT_REDUCE,
                            .role = ROLE_REDUCE,
                            .parent = -1,
                            .level = level,
                            .chunk = -1,
                            .first_child = first + (end - first) * g / groups,
                            .end_child = first + (end - first) * (g + 1) / groups};
        int64_t added = node_add(work, &node, err);
        if (added < 0)
            return -1;
        for (int64_t i = node.first_child; i < node.end_child; i++)
            work->nodes[i].parent = added;
    }
    return 0;
}

/* All nodes are done, and the last level has more than one answer: reduce it. */
static int next_level(struct work *work, const struct work_limits *limits, struct error *err)
{
    int64_t end = work->n_nodes, first = end - 1;
    if (work->nodes[first].kind == RESULT_FINAL)
        return 0;
    while (first > 0 && work->nodes[first - 1].level == work->nodes[end - 1].level)
        first--;
    return reduce_level(work, first, end, limits, err);
}

static void give_answer(struct node *node, struct job_result *result)
{
    node->tokens = result->tokens;
    node->n_tokens = result->count;
    node->finish = result->finish;
    result->tokens = NULL;
}

/* A chunk's predictions begin behind its overlap: those tokens have been scored with more before them. */
static void give_scores(struct work *work, const struct node *node, const struct job_result *result)
{
    const struct chunk *chunk = &work->chunks.items[node->chunk];
    const int64_t n_chunk = chunk->end_token - chunk->first_token;
    const int64_t lead =
        result->count - n_chunk; /* 0 with a BOS token in front; -1 without: token 0 has no score */
    if (node->chunk == 0)
        work->score_first = -lead;
    for (int64_t t = node->chunk == 0 ? -lead : chunk->overlap; t < n_chunk; t++) {
        work->logprob[chunk->first_token + t] = result->logprob[t + lead];
        work->top1[chunk->first_token + t] = result->top1[t + lead];
        if (result->reference_logprob)
            work->reference_logprob[chunk->first_token + t] = result->reference_logprob[t + lead];
    }
    if (result->reference_logprob)
        work->receipts[node->chunk] = result->receipt;
}

/* In the order of the chunks, whatever that of their arrival: a sum of rounded numbers depends on it. */
static void merge_receipts(struct work *work)
{
    for (int64_t i = 0; work->receipts && i < work->chunks.count; i++)
        receipt_merge(&work->receipt, &work->receipts[i], work->chunks.items[i].first_token);
}

/* Of several failures that of the lowest node is told: nodes are handed out in their order, so it does not depend
 * on which of them comes back first. */
static void note_failure(struct work *work, int64_t node, const struct error *failure)
{
    if (work->failed && work->failed_node < node)
        return;
    work->failed = true;
    work->failed_node = node;
    work->failure = *failure;
}

static void give_receipt(struct work *work, const struct job_result *result)
{
    work->receipt_state = NODE_DONE;
    work->receipt = result->receipt;
    if (result->failure.code != ERROR_NONE)
        note_failure(work, WORK_RECEIPT, &result->failure);
}

int work_give(struct work *work, int64_t node, const struct work_limits *limits, struct job_result *result,
              struct error *err)
{
    if (node == WORK_RECEIPT) {
        give_receipt(work, result);
        return 0;
    }
    struct node *done = &work->nodes[node];
    done->state = NODE_DONE;
    work->open--;
    work->prefill_seconds += result->prefill_seconds;
    work->decode_seconds += result->decode_seconds;
    work->prefilled += done->prompt_tokens;
    work->forgotten += done->chunk >= 0 ? result->forgotten : 0;
    if (result->failure.code != ERROR_NONE) {
        note_failure(work, node, &result->failure);
        return 0;
    }
    if (result->kind == JOB_SCORE) {
        give_scores(work, done, result);
        if (work->open == 0)
            merge_receipts(work);
        return 0;
    }
    give_answer(done, result);
    work->generated += done->n_tokens;
    if (work->strategy == STRATEGY_REFINE && node + 1 < work->n_nodes)
        work->nodes[node + 1].state = NODE_READY;
    return work->open == 0 && !work->failed ? next_level(work, limits, err) : 0;
}
