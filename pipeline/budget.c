#include "pipeline/budget.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "attention/blocks.h"
#include "attention/far_record.h"
#include "pipeline/layers.h"

enum unit { TOKENS, BYTES };

static int parse(const char *text, int64_t *amount, enum unit *unit, struct error *err)
{
    static const struct {
        const char *name;
        int shift;
    } suffixes[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
    char *end;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (end != text && errno == 0 && strcmp(end, suffixes[i].name) == 0 && number > 0 &&
            number < INT64_C(1) << (60 - suffixes[i].shift)) {
            *amount = number << suffixes[i].shift;
            *unit = i == 0 ? TOKENS : BYTES;
            return 0;
        }
    return error_set(err, ERROR_USAGE, "--memory-budget \"%.40s\" is not a number of tokens, or of KiB, MiB or GiB",
                     text);
}

/* Bytes of a token in the memories of all layers that the policy goes for; as many as it may turn out to be where
 * the dtype is chosen later. */
static double token_bytes(const struct options *options, const struct model *model, const struct policy_spec *spec)
{
    const enum dtype dtype = options->dtype == DTYPE_CHOICE_BF16 ? DTYPE_BF16 : DTYPE_F32;
    const double raw = 2.0 * model->shape.dim * (double)dtype_size(dtype);
    const double of_head =
        policy_past(spec) == PAST_FAR ? (double)far_record_bytes(model->shape.dim) / FAR_BLOCK : raw;
    const double found_by =
        policy_past(spec) == PAST_BLOCKS ? (double)model->shape.heads * model->shape.dim * sizeof(float) : 0;
    int layers = 0;
    for (int layer = 0; layer < model->shape.layers; layer++)
        layers += !layers_is_own(model, layer);
    return layers * (model->shape.kv_heads * of_head + found_by / BLOCK_TOKENS);
}

/* The parameter with which so many tokens are held at most: whole blocks only, and a window of landmark blocks may
 * begin up to rate - 1 tokens early. */
static int64_t whole_blocks(const struct policy_spec *spec, int64_t tokens)
{
    const int64_t block = i64_max(1, policy_block_tokens(spec));
    if (policy_past(spec) == PAST_LANDMARKS)
        return tokens / spec->rate * spec->rate - (spec->rate - 1);
    return tokens / block * block;
}

/* What bounds the policy's memory. */
static const struct policy_parameter *bound_of(const struct policy *policy)
{
    const struct policy_parameter *parameter = policy->parameters;
    while (parameter->where != policy->budget)
        parameter++;
    return parameter;
}

int budget_apply(const struct options *options, const struct model *model, struct policy_spec *spec,
                 struct error *err)
{
    const struct policy *policy = policy_of(spec->kind);
    int64_t amount = 0, least;
    enum unit unit = TOKENS;
    if (parse(options->memory_budget, &amount, &unit, err) != 0)
        return -1;
    if (policy->budget == 0)
        return error_set(err, ERROR_USAGE, "--memory-budget: policy %s keeps everything", policy->name);
    const struct policy_parameter *bound = bound_of(policy);
    int64_t *tokens = (int64_t *)(void *)((char *)spec + policy->budget);
    if (*tokens != bound->fallback)
        return error_set(err, ERROR_USAGE, "--memory-budget and %s= of --policy %s say the same: give one of them",
                         bound->name, policy->name);
    if (unit != TOKENS)
        amount = (int64_t)((double)amount / token_bytes(options, model, spec));
    *tokens = whole_blocks(spec, amount);
    least = i64_max(bound->least, spec->top * policy_block_tokens(spec));
    if (*tokens < least || *tokens > bound->most)
        return error_set(err, ERROR_USAGE,
                         "--memory-budget %s is %" PRId64 " tokens for policy %s, which wants %" PRId64
                         " to %" PRId64,
                         options->memory_budget, *tokens, policy->name, least, bound->most);
    return 0;
}
