#include "attention/position_method.h"

#include <math.h>

#include "base/num.h"

static const double PI = 3.14159265358979323846;

static const char *const names[POSITION_KINDS] = {
    [POSITION_NONE] = "none",         [POSITION_PI] = "pi",     [POSITION_NTK] = "ntk",
    [POSITION_DYNAMIC] = "dynamic",   [POSITION_YARN] = "yarn", [POSITION_LLAMA3] = "llama3",
    [POSITION_LONGROPE] = "longrope",
};

void position_method_defaults(struct position_method *method, enum position_kind kind)
{
    *method = (struct position_method){
        .kind = kind, .factor = 1, .beta_fast = 32, .beta_slow = 1, .low_freq = 1, .high_freq = 4};
}

const char *position_kind_name(enum position_kind kind)
{
    return names[kind];
}

bool position_method_follows(const struct position_method *method)
{
    return method->kind == POSITION_DYNAMIC || method->kind == POSITION_LONGROPE;
}

/* ---- checks ---- */

static int check_yarn(const struct position_method *m, struct error *err)
{
    if (!(m->beta_slow > 0 && m->beta_fast > m->beta_slow && isfinite(m->beta_fast)))
        return error_set(err, ERROR_INPUT, "positions yarn: beta_fast %g is not above beta_slow %g and 0",
                         m->beta_fast, m->beta_slow);
    if (!(m->mscale >= 0 && m->mscale_all_dim >= 0))
        return error_set(err, ERROR_INPUT, "positions yarn: mscale %g and mscale_all_dim %g cannot be negative",
                         m->mscale, m->mscale_all_dim);
    return 0;
}

static int check_factors(const float *factors, const char *which, int n, struct error *err)
{
    if (!factors)
        return error_set(err, ERROR_INPUT, "positions longrope: there is no list of %s factors", which);
    for (int i = 0; i < n; i++)
        if (!(factors[i] > 0) || !isfinite(factors[i]))
            return error_set(err, ERROR_INPUT,
                             "positions longrope: %s factor %d is %g (a positive number is needed)", which, i,
                             (double)factors[i]);
    return 0;
}

static int check_kind(const struct position_method *m, int dims, struct error *err)
{
    switch (m->kind) {
    case POSITION_NTK:
    case POSITION_DYNAMIC:
        if (dims < 4)
            return error_set(err, ERROR_INPUT, "positions %s: %d rotated dimensions (at least 4 are needed)",
                             names[m->kind], dims);
        return 0;
    case POSITION_YARN:
        return check_yarn(m, err);
    case POSITION_LLAMA3:
        if (!(m->low_freq > 0 && m->high_freq > m->low_freq && isfinite(m->high_freq)))
            return error_set(err, ERROR_INPUT,
                             "positions llama3: high_freq_factor %g is not above low_freq_factor %g", m->high_freq,
                             m->low_freq);
        return 0;
    case POSITION_LONGROPE:
        return check_factors(m->long_factors, "long", dims / 2, err) == 0
                   ? check_factors(m->short_factors, "short", dims / 2, err)
                   : -1;
    default:
        return 0;
    }
}

int position_method_check(const struct position_method *method, int dims, struct error *err)
{
    if (method->kind == POSITION_NONE)
        return 0;
    const char *name = names[method->kind];
    if (!(method->factor >= 1 && method->factor <= 1e6))
        return error_set(err, ERROR_INPUT, "positions %s: factor %g is not between 1 and a million", name,
                         method->factor);
    if (method->trained < 2 && method->kind != POSITION_PI && method->kind != POSITION_NTK)
        return error_set(err, ERROR_INPUT, "positions %s: a trained length of %lld tokens", name,
                         (long long)method->trained);
    if (!(method->attention_factor >= 0) || !isfinite(method->attention_factor))
        return error_set(err, ERROR_INPUT, "positions %s: attention factor %g", name, method->attention_factor);
    return check_kind(method, dims, err);
}

/* ---- frequencies ---- */

static void plain(const struct position_base *b, double base, double *thetas)
{
    for (int i = 0; i < b->dims / 2; i++) {
        thetas[i] = pow(base, -2.0 * i / b->dims);
        if (b->divisors)
            thetas[i] /= (double)b->divisors[i];
    }
}

static double ntk_base(const struct position_base *b, double scale)
{
    return b->base * pow(scale, (double)b->dims / (b->dims - 2));
}

static double dynamic_scale(const struct position_method *m, int64_t length)
{
    return m->factor * (double)i64_max(length, m->trained) / (double)m->trained - (m->factor - 1);
}

/* The index, a real one, of the pair that turns `turns` times within the trained length. */
static double pair_of_turns(const struct position_method *m, const struct position_base *b, double turns)
{
    return b->dims * log((double)m->trained / (turns * 2 * PI)) / (2 * log(b->base));
}

static void yarn(const struct position_method *m, const struct position_base *b, double *thetas)
{
    double low = pair_of_turns(m, b, m->beta_fast), high = pair_of_turns(m, b, m->beta_slow);
    if (!m->untruncated) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, b->dims - 1);
    if (low == high)
        high += 0.001;
    for (int i = 0; i < b->dims / 2; i++) {
        const double slowed = fmin(fmax((i - low) / (high - low), 0), 1);
        thetas[i] *= 1 - slowed + slowed / m->factor;
    }
}

static void llama3(const struct position_method *m, const struct position_base *b, double *thetas)
{
    for (int i = 0; i < b->dims / 2; i++) {
        const double waves = (double)m->trained * thetas[i] / (2 * PI); /* in the trained length */
        const double kept = fmin(fmax((waves - m->low_freq) / (m->high_freq - m->low_freq), 0), 1);
        thetas[i] *= (1 - kept) / m->factor + kept;
    }
}

static void interpolate(const struct position_method *m, const struct position_base *b, double *thetas)
{
    for (int i = 0; i < b->dims / 2; i++)
        thetas[i] /= m->factor;
}

static void longrope(const struct position_method *m, const struct position_base *b, int64_t length, double *thetas)
{
    const float *factors = length > m->trained ? m->long_factors : m->short_factors;
    for (int i = 0; i < b->dims / 2; i++)
        thetas[i] /= (double)factors[i];
}

static double base_of(const struct position_method *m, const struct position_base *b, int64_t length)
{
    switch (m->kind) {
    case POSITION_NTK:
        return ntk_base(b, m->factor);
    case POSITION_DYNAMIC:
        return ntk_base(b, dynamic_scale(m, length));
    default:
        return b->base;
    }
}

void position_method_thetas(const struct position_method *m, const struct position_base *b, int64_t length,
                            double *thetas)
{
    plain(b, base_of(m, b, length), thetas);
    switch (m->kind) {
    case POSITION_PI:
        interpolate(m, b, thetas);
        return;
    case POSITION_YARN:
        yarn(m, b, thetas);
        return;
    case POSITION_LLAMA3:
        llama3(m, b, thetas);
        return;
    case POSITION_LONGROPE:
        longrope(m, b, length, thetas);
        return;
    default:
        return;
    }
}

/* ---- temperature ---- */

static double yarn_mscale(double factor, double mscale)
{
    return 0.1 * mscale * log(factor) + 1;
}

static double yarn_temperature(const struct position_method *m)
{
    if (m->mscale > 0 && m->mscale_all_dim > 0)
        return yarn_mscale(m->factor, m->mscale) / yarn_mscale(m->factor, m->mscale_all_dim);
    return yarn_mscale(m->factor, 1);
}

double position_method_attention_factor(const struct position_method *m)
{
    if (m->attention_factor > 0)
        return m->attention_factor;
    switch (m->kind) {
    case POSITION_YARN:
        return yarn_temperature(m);
    case POSITION_LONGROPE:
        return sqrt(1 + log(m->factor) / log((double)m->trained));
    default:
        return 1;
    }
}
