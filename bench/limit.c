#include "bench/limit.h"

#include "attention/retrieve.h"
#include "bench/peak.h"

/* Keys that the queries at 0 .. n - 1 see in a layer, and those that they are held against to choose some. */
struct keys {
    double seen, searched;
};

static struct keys count_keys(const struct policy_spec *spec, int64_t n, int64_t segment)
{
    const int64_t kept = policy_kept(spec), rate = i64_max(1, spec->rate);
    struct keys keys = {0};
    for (int64_t position = 0; position < n; position++) {
        const int64_t first = policy_near_first(spec, position, position / segment * segment);
        const int64_t behind = i64_max(first - spec->sinks, 0);
        keys.seen += (double)(position + 1 - first + i64_min(kept, first / rate));
        if (policy_past(spec) == PAST_FAR)
            keys.searched += retrieve_products((double)(spec->far > 0 ? i64_min(spec->far, behind) : behind));
    }
    return keys;
}

struct limit limit_of(const struct model *model, const struct policy_spec *spec, int64_t n, int64_t segment)
{
    const struct model_shape *s = &model->shape;
    const struct keys keys = count_keys(spec, n, segment);
    const double weights = (double)model_linear_weights(model) + (double)s->width * s->vocab;
    const double of_a_key = (double)s->layers * s->heads * s->dim;
    const double peak = peak_of_fastest(), of_bytes = peak_of_bytes();
    return (struct limit){
        .linear = 2 * weights * (double)n / (1e9 * peak),
        .attended = 4 * of_a_key * keys.seen / (1e9 * peak),
        .searched = keys.searched > 0 ? of_a_key * keys.searched / (1e9 * of_bytes) : 0,
        .peak = peak,
        .peak_of_bytes = of_bytes,
    };
}

double limit_seconds(const struct limit *limit)
{
    return limit->linear + limit->attended + limit->searched;
}
