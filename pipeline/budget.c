#include "pipeline/budget.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "attention/far_record.h"

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

/* Bytes of a token in the far memories of all layers that the policy goes for. */
static double token_bytes(const struct model *model)
{
    int layers = 0;
    for (int layer = 0; layer < model->shape.layers; layer++)
        layers += !model_layer_is_local(model, layer);
    return (double)layers * model->shape.kv_heads * (double)far_record_bytes(model->shape.dim) / FAR_BLOCK;
}

int budget_apply(const char *text, const struct model *model, struct policy_spec *spec, struct error *err)
{
    const struct policy *policy = policy_of(spec->kind);
    int64_t amount = 0;
    enum unit unit = TOKENS;
    if (parse(text, &amount, &unit, err) != 0)
        return -1;
    if (!policy->retrieves)
        return error_set(err, ERROR_USAGE,
                         "--memory-budget bounds the far memory of policy retrieval; give %s its own parameters",
                         policy->name);
    if (spec->far != 0)
        return error_set(err, ERROR_USAGE,
                         "--memory-budget and memory= of --policy say the same: give one of them");
    spec->far = unit == TOKENS ? amount : (int64_t)((double)amount / token_bytes(model));
    if (spec->far < spec->top * FAR_BLOCK)
        return error_set(err, ERROR_USAGE,
                         "--memory-budget %s is %" PRId64 " tokens, and the policy chooses %" PRId64
                         " of them at a time",
                         text, spec->far, spec->top * FAR_BLOCK);
    return 0;
}
