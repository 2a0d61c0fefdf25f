#include "model/scaling.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct reader {
    const struct arch *arch;
    const struct bundle *bundle;
    struct error *err;
};

enum { KEY_SIZE = 96 };

static void make_key(const struct reader *r, const char *name, char out[KEY_SIZE])
{
    snprintf(out, KEY_SIZE, "%s.rope.%s", r->arch->name, name);
}

static bool has(const struct reader *r, const char *name)
{
    char key[KEY_SIZE];
    make_key(r, name, key);
    return bundle_value(r->bundle, key) != NULL;
}

/* A number that may be absent (then *out is left alone), but not negative. */
static int read_number(const struct reader *r, const char *name, double *out)
{
    char key[KEY_SIZE];
    make_key(r, name, key);
    if (bundle_real(r->bundle, key, *out, out, r->err) != 0)
        return -1;
    if (!(*out >= 0 && *out < 1e30))
        return error_set(r->err, ERROR_INPUT, "%s: %s is %g, not a number from 0 up", r->bundle->path, key, *out);
    return 0;
}

/* A file without a type but with a factor means linear scaling; "rope.scale_linear" is the factor's old name. */
static int read_kind(const struct reader *r, bool has_factors, enum position_kind *out)
{
    static const struct {
        const char *name;
        enum position_kind kind;
    } types[] = {
        {"none", POSITION_NONE}, {"linear", POSITION_PI}, {"yarn", POSITION_YARN}, {"longrope", POSITION_LONGROPE}};
    char key[KEY_SIZE];
    struct text type;
    make_key(r, "scaling.type", key);
    if (bundle_string(r->bundle, key, &type, r->err) != 0)
        return -1;
    const bool scaled = has(r, "scaling.factor") || has(r, "scale_linear");
    *out = has_factors ? POSITION_LONGROPE : scaled ? POSITION_PI : POSITION_NONE;
    if (type.length == 0)
        return 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!text_equals(type, types[i].name))
            continue;
        *out = types[i].kind;
        if (has_factors == (types[i].kind == POSITION_LONGROPE))
            return 0;
        return error_set(r->err, ERROR_INPUT, "%s: %s is \"%s\", but the file has %s rope_factors_long.weight",
                         r->bundle->path, key, types[i].name, has_factors ? "a tensor" : "no tensor");
    }
    return error_set(r->err, ERROR_INPUT, "%s: %s is \"%.*s\"; known are none, linear, yarn and longrope",
                     r->bundle->path, key, (int)(type.length < 32 ? type.length : 32), type.bytes);
}

/* A factor of 0 stands for none. */
static int read_factor(const struct reader *r, double *factor)
{
    if (read_number(r, "scale_linear", factor) != 0 || read_number(r, "scaling.factor", factor) != 0)
        return -1;
    if (*factor == 0)
        *factor = 1;
    return 0;
}

/* The lengths before and after the extension. */
static int read_lengths(const struct reader *r, struct scaling *out)
{
    char context[KEY_SIZE], original[KEY_SIZE];
    struct position_method *m = &out->method;
    snprintf(context, sizeof context, "%s.context_length", r->arch->name);
    make_key(r, "scaling.original_context_length", original);
    if (bundle_int(r->bundle, context, 0, &out->context, r->err) != 0 ||
        bundle_int(r->bundle, original, out->context, &m->trained, r->err) != 0)
        return -1;
    if (m->trained < 1 || m->trained > INT64_MAX / 4)
        return error_set(r->err, ERROR_INPUT, "%s: %s is %lld", r->bundle->path, original, (long long)m->trained);
    if (m->kind == POSITION_LONGROPE && !has(r, "scaling.factor"))
        m->factor = fmax(1, (double)out->context / (double)m->trained);
    const double reach = m->factor * (double)m->trained;
    if (m->kind != POSITION_NONE && bundle_value(r->bundle, original) && reach > (double)out->context &&
        reach < 1e15)
        out->context = (int64_t)reach;
    return 0;
}

/* What the two keys of an attention factor say is multiplied to the kind's own, whatever the kind: as in llama.cpp,
 * whose format it is (ggml's rope_yarn multiplies by it where nothing is scaled, too). Transformers knows one under
 * YaRN and LongRoPE only. */
static int read_attention(const struct reader *r, struct position_method *m)
{
    double attention = 1, again = 1;
    if (read_number(r, "scaling.attn_factor", &attention) != 0 ||
        read_number(r, "scaling.yarn_attn_factor", &again) != 0)
        return -1;
    if (attention * again != 1)
        m->attention_factor = attention * again * position_method_attention_factor(m);
    return 0;
}

/* In GGUF yarn_log_multiplier is mscale_all_dim where mscale is 1. A mixture of YaRN and PI (ext_factor) has no
 * counterpart here. */
static int read_yarn(const struct reader *r, struct position_method *m)
{
    double mixture = 1;
    if (read_number(r, "scaling.yarn_beta_fast", &m->beta_fast) != 0 ||
        read_number(r, "scaling.yarn_beta_slow", &m->beta_slow) != 0 ||
        read_number(r, "scaling.yarn_log_multiplier", &m->mscale_all_dim) != 0 ||
        read_number(r, "scaling.yarn_ext_factor", &mixture) != 0)
        return -1;
    if (mixture != 1)
        return error_set(r->err, ERROR_INPUT, "%s: %s.rope.scaling.yarn_ext_factor is %g; only 1 is supported",
                         r->bundle->path, r->arch->name, mixture);
    m->mscale = m->mscale_all_dim > 0;
    return 0;
}

int scaling_read(const struct arch *arch, const struct bundle *bundle, bool has_factors, struct scaling *out,
                 struct error *err)
{
    const struct reader r = {arch, bundle, err};
    struct position_method *m = &out->method;
    enum position_kind kind;
    if (read_kind(&r, has_factors, &kind) != 0)
        return -1;
    position_method_defaults(m, kind);
    if (read_factor(&r, &m->factor) != 0 || read_lengths(&r, out) != 0)
        return -1;
    if (kind == POSITION_LONGROPE) /* whose factor there is the whole of it */
        return read_number(&r, "scaling.attn_factor", &m->attention_factor);
    return kind == POSITION_YARN && read_yarn(&r, m) != 0 ? -1 : read_attention(&r, m);
}
