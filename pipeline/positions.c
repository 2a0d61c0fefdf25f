#include "pipeline/positions.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

/* --positions in the order of its words. */
static enum position_kind asked_kind(const struct options *options)
{
    return (enum position_kind)(options->positions - POSITIONS_CHOICE_METHODS);
}

static bool is_asked(const struct options *options)
{
    return options->positions != POSITIONS_CHOICE_AUTO;
}

/* The method to begin with: the file's own options where it has the same one, else those of the method's paper. */
static struct position_method begin_with(const struct model *model, enum position_kind kind)
{
    struct position_method method = model->positions;
    if (kind == method.kind)
        return method;
    position_method_defaults(&method, kind);
    method.trained = model->positions.trained;
    return method;
}

/* Llama 3's divisors are in the file: they are there under every method, and cannot be had twice. */
static int keep_divisors(const struct options *options, const struct model *model, struct error *err)
{
    if (options->factor > 0)
        return error_set(err, ERROR_USAGE,
                         "--positions llama3: %s has its divisors already (rope_freqs.weight), which --factor %g "
                         "cannot change",
                         model->bundle->path, options->factor);
    if (model->positions.kind != POSITION_NONE)
        return error_set(err, ERROR_USAGE, "--positions llama3: %s asks for %s on top of its divisors",
                         model->bundle->path, position_kind_name(model->positions.kind));
    return 0;
}

/* The factor, from --factor or from --context; dynamic scaling without --factor follows the length alone, which is
 * what its factor of 1 means. */
static int choose_factor(const struct options *options, const struct model *model, struct position_method *method,
                         struct error *err)
{
    const char *name = position_kind_name(method->kind);
    const bool own = method->kind == model->positions.kind; /* the file has a factor for it */
    double factor = options->factor;
    if (method->kind == POSITION_LONGROPE && !model->long_factors)
        return error_set(err, ERROR_USAGE, "--positions longrope: %s has no rope_factors_long.weight",
                         model->bundle->path);
    if (factor == 0 && method->kind == POSITION_DYNAMIC && options->context > 0)
        factor = 1;
    if (factor == 0 && options->context > 0 && method->kind != POSITION_LONGROPE)
        factor = fmax(1, (double)options->context / (double)method->trained);
    if (factor == 0 && own)
        return 0;
    if (factor == 0)
        return error_set(err, ERROR_USAGE, "--positions %s needs --factor F, or --context N to compute it from",
                         name);
    if (factor != method->factor)
        method->attention_factor = 0; /* it went with the other factor */
    method->factor = factor;
    return 0;
}

/* Tokens that positions reach. */
static int64_t reach(const struct options *options, const struct model *model, const struct position_method *method)
{
    if (options->factor > 0)
        return llround(fmin(options->factor * (double)method->trained, 1e15));
    if (options->context > 0 && method->kind != POSITION_LONGROPE)
        return i64_max(options->context, method->trained);
    return model->context;
}

int positions_choose(const struct options *options, struct model *model, struct error *err)
{
    const enum position_kind kind = asked_kind(options);
    if (!is_asked(options))
        return 0;
    if (kind == POSITION_LLAMA3 && model->rope_divisors)
        return keep_divisors(options, model, err);
    struct position_method method = begin_with(model, kind);
    if (kind == POSITION_NONE)
        return model_set_positions(model, &method, method.trained, err);
    if (choose_factor(options, model, &method, err) != 0)
        return -1;
    return model_set_positions(model, &method, reach(options, model, &method), err);
}

/* "yarn, factor 4"; a file may have a factor of attention and nothing else. */
static void name_method(const struct position_method *method, char *out, size_t size)
{
    if (method->kind == POSITION_NONE && method->attention_factor > 0)
        snprintf(out, size, "attention factor %.6g", method->attention_factor);
    else if (method->kind == POSITION_NONE || method->kind == POSITION_LONGROPE)
        snprintf(out, size, "%s", position_kind_name(method->kind));
    else
        snprintf(out, size, "%s, factor %.6g", position_kind_name(method->kind), method->factor);
}

static bool replaces_the_files(const struct model *model)
{
    const struct position_method *own = &model->file_positions, *now = &model->positions;
    if (own->kind == POSITION_NONE)
        return own->attention_factor > 0 && now->attention_factor != own->attention_factor;
    return now->kind != own->kind || now->factor != own->factor;
}

bool positions_replace(const struct model *model, char *out, size_t size)
{
    char asked[64], of_file[64];
    if (!replaces_the_files(model))
        return false;
    name_method(&model->positions, asked, sizeof asked);
    name_method(&model->file_positions, of_file, sizeof of_file);
    snprintf(out, size, "%s, in place of the file's %s", asked, of_file);
    return true;
}

bool positions_differ(const struct model *model)
{
    const struct position_method *a = &model->positions, *b = &model->file_positions;
    return a->kind != b->kind || fabs(a->factor - b->factor) >= 1e-12;
}

/* Why it is this method and this factor. */
static void describe_reason(const struct options *options, const struct model *model, char *out, size_t size)
{
    const struct position_method *m = &model->positions;
    const bool replaces = replaces_the_files(model);
    char of_file[64] = "";
    if (!is_asked(options)) {
        snprintf(out, size, "the model's own");
        return;
    }
    const bool from_context =
        options->factor == 0 && options->context > 0 && m->kind != POSITION_NONE && !position_method_follows(m);
    if (replaces)
        name_method(&model->file_positions, of_file, sizeof of_file);
    snprintf(out, size, "--positions%s%s%s", from_context ? ", for --context" : "",
             replaces ? " in place of the file's " : "", of_file);
}

/* "dynamic, factor 1 beyond 8192 tokens, by segments"; a file that names only one length has it extended. */
static void describe_method(const struct model *model, char *out, size_t size)
{
    const struct position_method *m = &model->positions;
    const char *segments = position_method_follows(m) ? ", by segments" : "";
    char beyond[48] = "";
    if (model->context > m->trained)
        snprintf(beyond, sizeof beyond, " beyond %" PRId64 " tokens", m->trained);
    if (m->kind == POSITION_NONE)
        snprintf(out, size, "%s", replaces_the_files(model) ? "none" : "as trained");
    else
        snprintf(out, size, "%s, factor %.6g%s%s", position_kind_name(m->kind), m->factor, beyond, segments);
}

void positions_describe(const struct options *options, const struct model *model, char *out, size_t size)
{
    char method[128], reason[128];
    describe_method(model, method, sizeof method);
    describe_reason(options, model, reason, sizeof reason);
    snprintf(out, size, "positions %s%s (%s)", method, model->rope_divisors ? " with Llama 3's divisors" : "",
             reason);
}
