#include "attention/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/blocks.h"
#include "attention/far_record.h"
#include "base/num.h"
#include "base/words.h"

static const struct policy *const policies[POLICY_KINDS] = {
    [POLICY_FULL] = &policy_full,     [POLICY_WINDOW] = &policy_window,
    [POLICY_SINKS] = &policy_sinks,   [POLICY_RETRIEVAL] = &policy_retrieval,
    [POLICY_MEMORY] = &policy_memory, [POLICY_COMPRESSIVE] = &policy_compressive,
    [POLICY_H2O] = &policy_h2o,       [POLICY_SNAPKV] = &policy_snapkv,
    [POLICY_INFLLM] = &policy_infllm, [POLICY_LANDMARK] = &policy_landmark,
};

const struct policy *policy_of(enum policy_kind kind)
{
    return policies[kind];
}

bool policy_goes_round(enum policy_kind kind)
{
    return kind == POLICY_FULL || kind == POLICY_WINDOW;
}

static int64_t *parameter_of(struct policy_spec *spec, const struct policy_parameter *parameter)
{
    return (int64_t *)((char *)spec + parameter->where);
}

bool policy_same(const struct policy_spec *a, const struct policy_spec *b)
{
    _Static_assert(sizeof *a == sizeof(int64_t) * 11, "a field more wants to be compared, too");
    return a->kind == b->kind && a->window == b->window && a->sinks == b->sinks && a->slots == b->slots &&
           a->nearest == b->nearest && a->top == b->top && a->rate == b->rate && a->pool == b->pool &&
           a->weigh == b->weigh && a->token == b->token && a->far == b->far;
}

/* ---- reading ---- */

static int find_kind(const char *name, size_t length, enum policy_kind *out, struct error *err)
{
    char known[512] = "";
    for (int kind = 0; kind < POLICY_KINDS; kind++) {
        if (strlen(policies[kind]->name) == length && memcmp(policies[kind]->name, name, length) == 0) {
            *out = (enum policy_kind)kind;
            return 0;
        }
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", kind ? ", " : "", policies[kind]->name);
    }
    return error_set(err, ERROR_USAGE, "policy \"%.*s\" is not one of %s", (int)(length < 40 ? length : 40), name,
                     known);
}

static int read_value(const struct policy *policy, const struct policy_parameter *p, const char *text,
                      size_t length, int64_t *out, struct error *err)
{
    const int shown = (int)(length < 60 ? length : 60);
    char *end;
    if (p->words) {
        *out = words_find(p->words, text, length);
        return *out >= 0 ? 0
                         : error_set(err, ERROR_USAGE, "policy %s: %s=%.*s is not one of %s", policy->name, p->name,
                                     shown, text, p->words);
    }
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (end != text + length || length == 0 || errno != 0)
        return error_set(err, ERROR_USAGE, "policy %s: \"%s=%.*s\" is not a whole number", policy->name, p->name,
                         shown, text);
    if (*out < p->least || *out > p->most)
        return error_set(err, ERROR_USAGE, "policy %s: %s=%lld is not between %lld and %lld", policy->name, p->name,
                         (long long)*out, (long long)p->least, (long long)p->most);
    return 0;
}

/* One "parameter=value" of `length` bytes. */
static int read_parameter(struct policy_spec *spec, const char *text, size_t length, struct error *err)
{
    const struct policy *policy = policy_of(spec->kind);
    char known[256] = "";
    for (const struct policy_parameter *p = policy->parameters; p->name; p++) {
        const size_t name = strlen(p->name);
        if (length > name && memcmp(text, p->name, name) == 0 && text[name] == '=')
            return read_value(policy, p, text + name + 1, length - name - 1, parameter_of(spec, p), err);
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", p->name);
    }
    return error_set(err, ERROR_USAGE, "policy %s: \"%.*s\" is not PARAMETER=VALUE with one of: %s", policy->name,
                     (int)(length < 60 ? length : 60), text, known[0] ? known : "(it has none)");
}

int policy_parse(const char *text, struct policy_spec *out, struct error *err)
{
    *out = (struct policy_spec){0};
    const size_t name = strcspn(text, ":");
    if (find_kind(text, name, &out->kind, err) != 0)
        return -1;
    const struct policy *policy = policy_of(out->kind);
    for (const struct policy_parameter *p = policy->parameters; p->name; p++)
        *parameter_of(out, p) = p->fallback;
    const char *rest = text[name] ? text + name + 1 : text + name;
    while (*rest) {
        const size_t length = strcspn(rest, ",");
        if (read_parameter(out, rest, length, err) != 0)
            return -1;
        rest += length + (rest[length] == ',');
    }
    return policy->check ? policy->check(out, err) : 0;
}

static void describe_value(const struct policy_parameter *p, int64_t value, char *out, size_t size)
{
    if (p->words)
        words_copy(p->words, value, out, size);
    else
        snprintf(out, size, "%lld", (long long)value);
}

void policy_describe(const struct policy_spec *spec, char *out, size_t size)
{
    const struct policy *policy = policy_of(spec->kind);
    struct policy_spec copy = *spec;
    size_t used = (size_t)snprintf(out, size, "%s", policy->name);
    for (const struct policy_parameter *p = policy->parameters; p->name && used < size; p++) {
        char value[32];
        describe_value(p, *parameter_of(&copy, p), value, sizeof value);
        used += (size_t)snprintf(out + used, size - used, "%c%s=%s", p == policy->parameters ? ':' : ',', p->name,
                                 value);
    }
}

/* ---- the near part ---- */

enum past policy_past(const struct policy_spec *spec)
{
    return policy_of(spec->kind)->past;
}

int64_t policy_block_tokens(const struct policy_spec *spec)
{
    switch (policy_past(spec)) {
    case PAST_FAR:
        return FAR_BLOCK;
    case PAST_BLOCKS:
        return BLOCK_TOKENS;
    default:
        return 0;
    }
}

/* What is before the near part is sinks and whole blocks. */
static int64_t at_block_border(const struct policy_spec *spec, int64_t first)
{
    const int64_t block = policy_block_tokens(spec);
    return first > spec->sinks ? spec->sinks + (first - spec->sinks) / block * block : 0;
}

int64_t policy_near_first(const struct policy_spec *spec, int64_t position, int64_t segment_first)
{
    const struct policy *policy = policy_of(spec->kind);
    int64_t first = 0;
    switch (policy->near) {
    case NEAR_ALL:
        break;
    case NEAR_SLIDING:
        first = position - spec->window + 1;
        break;
    case NEAR_SEGMENT:
        first = segment_first - spec->window;
        break;
    case NEAR_GROUP:
        first = position / POLICY_GROUP * POLICY_GROUP - spec->window;
        break;
    }
    if (policy_block_tokens(spec) > 0)
        return at_block_border(spec, first);
    first = i64_max(first, 0);
    return spec->rate > 0 ? first / spec->rate * spec->rate : first; /* whole slots leave */
}

/* Slots keep single tokens, at the positions they had as long as they are all there. */
static bool keeps_tokens(const struct policy_spec *spec)
{
    const struct policy *policy = policy_of(spec->kind);
    return policy->keep && policy->positions == SLOTS_INDEXED && spec->rate == 0;
}

int64_t policy_exact_from(const struct policy_spec *spec, int64_t position, int64_t segment_first)
{
    if (policy_past(spec) == PAST_LANDMARKS) /* every query chooses, and there are tokens that are not the text's */
        return position;
    const int64_t near = policy_near_first(spec, position, segment_first);
    const int64_t first = policy_past(spec) == PAST_BLOCKS ? i64_max(near, position - spec->window + 1) : near;
    const int64_t kept = spec->sinks + (keeps_tokens(spec) ? spec->slots : 0);
    return first <= kept ? 0 : first;
}

int64_t policy_kept(const struct policy_spec *spec)
{
    return spec->sinks + spec->slots + spec->top * policy_block_tokens(spec);
}

int64_t policy_observe(const struct policy_spec *spec)
{
    const bool pools = spec->rate > 0 && spec->pool != POOL_USED;
    return pools ? 0 : policy_of(spec->kind)->observe;
}

int64_t policy_near_reach(const struct policy_spec *spec)
{
    const struct policy *policy = policy_of(spec->kind);
    const int64_t block = policy_block_tokens(spec), beside = block > 0 ? i64_max(block, spec->sinks) : 0;
    return spec->window + (policy->near == NEAR_GROUP ? POLICY_GROUP : 0) + beside + i64_max(0, spec->rate - 1);
}

/* Most tokens from the first near one up to its query, once the text is long enough. */
static int64_t most_near(const struct policy_spec *spec, int64_t first, int64_t end)
{
    const struct policy *policy = policy_of(spec->kind);
    const int64_t whole =
        i64_max(0, i64_max(spec->rate, policy_block_tokens(spec)) - 1); /* what leaves does so together */
    switch (policy->near) {
    case NEAR_SLIDING:
        return spec->window;
    case NEAR_SEGMENT:
        return spec->window + whole + end - first;
    case NEAR_GROUP:
        return spec->window + whole + POLICY_GROUP;
    default:
        return end;
    }
}

int64_t policy_reach(const struct policy_spec *spec, int64_t first, int64_t end)
{
    const struct policy *policy = policy_of(spec->kind);
    const int64_t near = most_near(spec, first, end);
    if (policy_past(spec) == PAST_LANDMARKS) /* old blocks stand before the last `top` and the query's own */
        return i64_min(end, i64_min(near, (spec->top + 2) * spec->rate));
    switch (policy->positions) {
    case SLOTS_AT_ONE:
        return i64_min(end, spec->window + 1);
    case SLOTS_AT_FIRST:
        return i64_min(end, near);
    default:
        return i64_min(end, policy_kept(spec) + near);
    }
}

/* A query's place inside what it sees is never behind its place in the text, and the one distance of SLOTS_AT_ONE
 * is asked for only where the text goes beyond it. Landmarks leave room for a block before all that there are. */
int64_t policy_positions(const struct policy_spec *spec, int64_t n)
{
    return n + (policy_past(spec) == PAST_LANDMARKS ? spec->rate : 0);
}
