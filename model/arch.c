#include "model/arch.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attention/kernel.h"

static const struct arch architectures[] = {
    {.name = "llama", .pairs = ROPE_NEIGHBOURS, .qkv_bias = false},
    {.name = "qwen2", .pairs = ROPE_HALVES, .qkv_bias = true},
    {
        .name = "gemma3",
        .pairs = ROPE_HALVES,
        .head_norms = true,
        .post_norms = true,
        .embedding_scaled = true,
        .activation = ACTIVATION_GELU_TANH,
        .global_every = 6,
        .local_rope_base = 10000.0,
        .width_scaled = 62, /* the 27B: query_pre_attn_scalar is 168, and its file does not say so */
    },
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof *architectures };

const struct arch *arch_find(const struct bundle *bundle, struct error *err)
{
    struct text name;
    if (bundle_string(bundle, "general.architecture", &name, err) != 0)
        return NULL;
    char known[128] = "";
    for (int i = 0; i < N_ARCHITECTURES; i++) {
        if (text_equals(name, architectures[i].name))
            return &architectures[i];
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", architectures[i].name);
    }
    error_set(err, ERROR_INPUT, "%s: general.architecture is \"%.*s\"; known are %s", bundle->path,
              (int)(name.length < 64 ? name.length : 64), name.bytes ? name.bytes : "", known);
    return NULL;
}

/* One number of the shape: where it stands in the file, and what it may be. */
struct field {
    const char *key; /* behind "<arch>." */
    int64_t least, most;
    int64_t fallback; /* 0: the key must be there */
    int64_t *out;
};

static int read_field(const struct arch *arch, const struct bundle *bundle, const struct field *field,
                      struct error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch->name, field->key);
    if (!bundle_value(bundle, key) && field->fallback == 0)
        return error_set(err, ERROR_INPUT, "%s: %s is missing", bundle->path, key);
    if (bundle_int(bundle, key, field->fallback, field->out, err) != 0)
        return -1;
    if (*field->out < field->least || *field->out > field->most)
        return error_set(err, ERROR_INPUT, "%s: %s is %lld, not between %lld and %lld", bundle->path, key,
                         (long long)*field->out, (long long)field->least, (long long)field->most);
    return 0;
}

static int read_real(const struct arch *arch, const struct bundle *bundle, const char *name, double fallback,
                     double *out, struct error *err)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", arch->name, name);
    if (bundle_real(bundle, key, fallback, out, err) != 0)
        return -1;
    if (!(*out > 0 && *out < 1e30))
        return error_set(err, ERROR_INPUT, "%s: %s is %g, not a positive number", bundle->path, key, *out);
    return 0;
}

static int refuse_softcaps(const struct arch *arch, const struct bundle *bundle, struct error *err)
{
    static const char *const names[] = {"attn_logit_softcapping", "final_logit_softcapping"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char key[96];
        double cap;
        snprintf(key, sizeof key, "%s.%s", arch->name, names[i]);
        if (bundle_real(bundle, key, 0, &cap, err) != 0)
            return -1;
        if (cap != 0)
            return error_set(err, ERROR_INPUT, "%s: %s is %g; capped logits are not supported", bundle->path, key,
                             cap);
    }
    return 0;
}

/* What would change the answer and is not done here must not be passed over. */
static int refuse_unsupported(const struct arch *arch, const struct bundle *bundle, struct error *err)
{
    char key[96];
    int64_t experts;
    snprintf(key, sizeof key, "%s.expert_count", arch->name);
    if (bundle_int(bundle, key, 0, &experts, err) != 0)
        return -1;
    if (experts != 0)
        return error_set(err, ERROR_INPUT, "%s: a mixture of %lld experts is not supported", bundle->path,
                         (long long)experts);
    return refuse_softcaps(arch, bundle, err);
}

static int check_heads(const struct bundle *bundle, const struct model_shape *shape, struct error *err)
{
    if (shape->heads % shape->kv_heads != 0)
        return error_set(err, ERROR_INPUT, "%s: %d heads cannot share %d kv heads evenly", bundle->path,
                         shape->heads, shape->kv_heads);
    if (shape->dim % 16 != 0)
        return error_set(err, ERROR_INPUT, "%s: heads of %d elements; a multiple of 16 is needed", bundle->path,
                         shape->dim);
    if (shape->rope_dims % 2 != 0 || shape->rope_dims > shape->dim)
        return error_set(err, ERROR_INPUT, "%s: %d rotated elements in a head of %d", bundle->path,
                         shape->rope_dims, shape->dim);
    return 0;
}

/* Which layers are local; the file's own pattern goes before the architecture's. */
static int read_pattern(const struct arch *arch, const struct bundle *bundle, int *global_every, struct error *err)
{
    const char *const name = "attention.sliding_window_pattern";
    char key[96];
    int64_t every;
    snprintf(key, sizeof key, "%s.%s", arch->name, name);
    if (bundle_int(bundle, key, arch->global_every, &every, err) != 0)
        return -1;
    if (every < 0 || every > 1024)
        return error_set(err, ERROR_INPUT, "%s: %s is %lld, not between 0 and 1024", bundle->path, key,
                         (long long)every);
    *global_every = (int)every;
    return 0;
}

static int read_reals(const struct arch *arch, const struct bundle *bundle, struct model_shape *shape,
                      struct error *err)
{
    const bool by_width = arch->width_scaled == shape->layers;
    const double per_head = by_width ? (double)shape->width / shape->heads : shape->dim;
    shape->embedding_scale = arch->embedding_scaled ? sqrtf((float)shape->width) : 1.0F;
    if (read_real(arch, bundle, "rope.freq_base", 10000.0, &shape->rope_base, err) != 0)
        return -1;
    if (arch->local_rope_base > 0 &&
        read_real(arch, bundle, "rope.freq_base_swa", arch->local_rope_base, &shape->local_rope_base, err) != 0)
        return -1;
    if (read_real(arch, bundle, "attention.scale", 1 / sqrt(per_head), &shape->attention_scale, err) != 0)
        return -1;
    return read_real(arch, bundle, "attention.layer_norm_rms_epsilon", 1e-5, &shape->norm_eps, err);
}

int model_shape_read(const struct arch *arch, const struct bundle *bundle, struct model_shape *out,
                     struct error *err)
{
    int64_t layers, width, ffn, heads, kv_heads, dim, rope_dims, context, window;
    if (refuse_unsupported(arch, bundle, err) != 0)
        return -1;
    const struct field sizes[] = {
        {"block_count", 1, 1024, 0, &layers},
        {"embedding_length", 16, 1 << 17, 0, &width},
        {"feed_forward_length", 16, 1 << 19, 0, &ffn},
        {"attention.head_count", 1, 1024, 0, &heads},
        {"context_length", 1, INT64_MAX / 4, 0, &context},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (read_field(arch, bundle, &sizes[i], err) != 0)
            return -1;
    const struct field of_heads[] = {
        {"attention.head_count_kv", 1, heads, heads, &kv_heads},
        {"attention.key_length", 16, ATTN_MAX_DIM, width / heads, &dim},
    };
    for (size_t i = 0; i < sizeof of_heads / sizeof *of_heads; i++)
        if (read_field(arch, bundle, &of_heads[i], err) != 0)
            return -1;
    const struct field rest[] = {
        {"rope.dimension_count", 2, dim, dim, &rope_dims},
        {"attention.sliding_window", 0, INT64_MAX, arch->global_every ? 0 : INT64_MAX, &window},
    };
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        if (read_field(arch, bundle, &rest[i], err) != 0)
            return -1;
    *out = (struct model_shape){
        .layers = (int)layers,
        .width = (int)width,
        .ffn = (int)ffn,
        .heads = (int)heads,
        .kv_heads = (int)kv_heads,
        .dim = (int)dim,
        .rope_dims = (int)rope_dims,
        .context = context,
        .window = window < context ? window : 0,
    };
    if (read_pattern(arch, bundle, &out->global_every, err) != 0 || read_reals(arch, bundle, out, err) != 0)
        return -1;
    return check_heads(bundle, out, err);
}
