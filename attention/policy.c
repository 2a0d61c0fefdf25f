#include "attention/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/far_record.h"
#include "base/num.h"

static const struct policy *const policies[POLICY_KINDS] = {
    [POLICY_FULL] = &policy_full,           [POLICY_WINDOW] = &policy_window, [POLICY_SINKS] = &policy_sinks,
    [POLICY_RETRIEVAL] = &policy_retrieval, [POLICY_MEMORY] = &policy_memory,
};

const struct policy *policy_of(enum policy_kind kind)
{
    return policies[kind];
}

static int64_t *parameter_of(struct policy_spec *spec, const struct policy_parameter *parameter)
{
    return (int64_t *)((char *)spec + parameter->where);
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

/* One "parameter=value" of `length` bytes. */
static int read_parameter(struct policy_spec *spec, const char *text, size_t length, struct error *err)
{
    const struct policy *policy = policy_of(spec->kind);
    char known[256] = "";
    for (const struct policy_parameter *p = policy->parameters; p->name; p++) {
        const size_t name = strlen(p->name);
        if (length > name && memcmp(text, p->name, name) == 0 && text[name] == '=') {
            char *end;
            errno = 0;
            const long long value = strtoll(text + name + 1, &end, 10);
            if (end != text + length || end == text + name + 1 || errno != 0)
                return error_set(err, ERROR_USAGE, "policy %s: \"%.*s\" is not a whole number", policy->name,
                                 (int)(length < 60 ? length : 60), text);
            if (value < p->least || value > p->most)
                return error_set(err, ERROR_USAGE, "policy %s: %s=%lld is not between %lld and %lld", policy->name,
                                 p->name, value, (long long)p->least, (long long)p->most);
            *parameter_of(spec, p) = value;
            return 0;
        }
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", p->name);
    }
    return error_set(err, ERROR_USAGE, "policy %s: \"%.*s\" is not PARAMETER=NUMBER with one of: %s", policy->name,
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

void policy_describe(const struct policy_spec *spec, char *out, size_t size)
{
    const struct policy *policy = policy_of(spec->kind);
    struct policy_spec copy = *spec;
    size_t used = (size_t)snprintf(out, size, "%s", policy->name);
    for (const struct policy_parameter *p = policy->parameters; p->name && used < size; p++)
        used += (size_t)snprintf(out + used, size - used, "%c%s=%lld", p == policy->parameters ? ':' : ',', p->name,
                                 (long long)*parameter_of(&copy, p));
}

/* ---- the near part ---- */

/* What is before the near part is sinks and whole blocks of the far memory. */
static int64_t at_block_border(const struct policy_spec *spec, int64_t first)
{
    return first > spec->sinks ? spec->sinks + (first - spec->sinks) / FAR_BLOCK * FAR_BLOCK : 0;
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
    return policy->retrieves ? at_block_border(spec, first) : i64_max(first, 0);
}

int64_t policy_kept(const struct policy_spec *spec)
{
    return spec->sinks + spec->slots + spec->top * FAR_BLOCK;
}

int64_t policy_near_reach(const struct policy_spec *spec)
{
    const struct policy *policy = policy_of(spec->kind);
    return spec->window + (policy->near == NEAR_GROUP ? POLICY_GROUP : 0) + (policy->retrieves ? FAR_BLOCK : 0);
}
