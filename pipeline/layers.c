#include "pipeline/layers.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "attention/retrieve.h"
#include "base/log.h"

/* ---- the table of --layers ---- */

struct layers_table {
    const char *name; /* of its file, for messages */
    int line;
    struct policy_spec *policies;
    int layers;
    int stretches; /* that have been read */
};

/* "FIRST[-LAST]" at *text, which then points behind it. */
static int read_stretch(const struct layers_table *table, char **text, long *first, long *last, struct error *err)
{
    char *end;
    *first = *last = strtol(*text, &end, 10);
    if (end != *text && *end == '-') {
        *text = end + 1;
        *last = strtol(*text, &end, 10);
    }
    if (end == *text || !isspace((unsigned char)*end) || *first < 0 || *last < *first || *last >= table->layers)
        return error_set(err, ERROR_INPUT, "%s:%d: \"%.40s\" is not LAYER or FIRST-LAST within 0-%d, then a policy",
                         table->name, table->line, *text, table->layers - 1);
    *text = end;
    return 0;
}

static int read_line(struct layers_table *table, char *line, struct error *err)
{
    long first, last;
    struct policy_spec spec;
    struct error parse;
    line[strcspn(line, "#\r\n")] = '\0';
    line += strspn(line, " \t");
    if (*line == '\0')
        return 0;
    if (read_stretch(table, &line, &first, &last, err) != 0)
        return -1;
    line += strspn(line, " \t");
    for (size_t end = strlen(line); end > 0 && isspace((unsigned char)line[end - 1]); end--)
        line[end - 1] = '\0';
    if (policy_parse(line, &spec, &parse) != 0)
        return error_set(err, ERROR_INPUT, "%s:%d: %.400s", table->name, table->line, parse.text);
    for (long layer = first; layer <= last; layer++)
        table->policies[layer] = spec;
    table->stretches++;
    return 0;
}

/* It is read more than once before a run begins, so it has to be a file that stays. */
static int check_file(const char *name, struct error *err)
{
    struct stat found;
    if (stat(name, &found) != 0)
        return error_errno(err, "opening %s", name);
    return S_ISREG(found.st_mode) ? 0 : error_set(err, ERROR_INPUT, "%s is not a regular file", name);
}

static int read_file(struct layers_table *table, struct error *err)
{
    if (check_file(table->name, err) != 0)
        return -1;
    FILE *in = fopen(table->name, "r");
    if (!in)
        return error_errno(err, "opening %s", table->name);
    char *line = NULL;
    size_t size = 0;
    int status = 0;
    while (status == 0 && getline(&line, &size, in) >= 0) {
        table->line++;
        status = read_line(table, line, err);
    }
    if (status == 0 && ferror(in))
        status = error_errno(err, "reading %s", table->name);
    free(line);
    fclose(in);
    return status;
}

/* Lines on the command line, with ';' between them. */
static int read_lines(struct layers_table *table, const char *lines, struct error *err)
{
    char *copy = strdup(lines), *rest = copy, *line;
    int status = copy ? 0 : error_set(err, ERROR_RESOURCE, "no memory for --layers");
    while (status == 0 && (line = strsep(&rest, ";")) != NULL) {
        table->line++;
        status = read_line(table, line, err);
    }
    free(copy);
    return status;
}

bool layers_are_lines(const char *lines)
{
    return isdigit((unsigned char)lines[0]) && strchr(lines, ' ');
}

static int read_table(struct layers_table *table, const char *lines, struct error *err)
{
    if (layers_are_lines(lines))
        return read_lines(table, lines, err);
    table->name = lines;
    if (read_file(table, err) != 0)
        return -1;
    return table->stretches > 0 ? 0
                                : error_set(err, ERROR_INPUT, "%s: no line has layers and a policy", table->name);
}

/* ---- the choice ---- */

bool layers_is_own(const struct model *model, int layer)
{
    return model->shape.window > 0 && model_layer_is_local(model, layer);
}

/* What the model was trained with. */
static struct policy_spec own_policy(const struct model *model, int layer)
{
    return layers_is_own(model, layer) ? (struct policy_spec){.kind = POLICY_WINDOW, .window = model->shape.window}
                                       : (struct policy_spec){.kind = POLICY_FULL};
}

/* What a trained compression asks of the model. */
static int check_convolutions(const struct policy_spec *policies, const struct model *model, struct error *err)
{
    for (int layer = 0; layer < model->shape.layers; layer++) {
        const struct policy_spec *spec = &policies[layer];
        const int rate = model->layers[layer].convolutions.keys.rate;
        if (spec->kind != POLICY_COMPRESSIVE || spec->pool != POOL_CONVOLUTION || spec->rate == rate)
            continue;
        if (rate == 0)
            return error_set(
                err, ERROR_USAGE,
                "policy compressive:form=conv: the model's file has no tensor blk.%d.compress_k.weight", layer);
        return error_set(err, ERROR_USAGE,
                         "policy compressive:form=conv: the weights in the model's file make one slot of rate=%d "
                         "tokens in layer %d",
                         rate, layer);
    }
    return 0;
}

/* Landmarks stand in the text that all layers read. */
static int check_landmarks(const struct policy_spec *policies, const struct model *model, struct error *err)
{
    for (int layer = 0; layer < model->shape.layers; layer++) {
        const bool both = policies[layer].kind == POLICY_LANDMARK && policies[0].kind == POLICY_LANDMARK;
        if (policies[layer].kind != POLICY_LANDMARK && policies[0].kind != POLICY_LANDMARK)
            continue;
        if (!both || policies[layer].token != policies[0].token || policies[layer].rate != policies[0].rate)
            return error_set(
                err, ERROR_USAGE,
                "policy landmark must go for all layers with the same token= and block=: layer %d differs "
                "from layer 0",
                layer);
        if (policies[layer].token >= model->shape.vocab)
            return error_set(err, ERROR_USAGE,
                             "policy landmark: token=%" PRId64 ", and the model's vocabulary has %d",
                             policies[layer].token, model->shape.vocab);
    }
    return 0;
}

int layers_choose(const struct policy_spec *general, const char *lines, const struct model *model,
                  struct policy_spec *policies, struct error *err)
{
    for (int layer = 0; layer < model->shape.layers; layer++) {
        policies[layer] = own_policy(model, layer);
        if (policies[layer].kind == POLICY_FULL)
            policies[layer] = *general;
    }
    struct layers_table table = {"--layers", 0, policies, model->shape.layers, 0};
    if (lines && read_table(&table, lines, err) != 0)
        return -1;
    return check_convolutions(policies, model, err) != 0 ? -1 : check_landmarks(policies, model, err);
}

bool layers_all_own(const struct model *model)
{
    for (int layer = 0; layer < model->shape.layers; layer++)
        if (!layers_is_own(model, layer))
            return false;
    return true;
}

bool layers_any_full(const struct policy_spec *policies, int layers)
{
    for (int layer = 0; layer < layers; layer++)
        if (policies[layer].kind == POLICY_FULL)
            return true;
    return false;
}

bool layers_untouched(const struct policy_spec *policies, const struct model *model)
{
    for (int layer = 0; layer < model->shape.layers; layer++) {
        const struct policy_spec own = own_policy(model, layer);
        if (!policy_same(&policies[layer], &own))
            return false;
    }
    return true;
}

bool layers_lossy(const struct policy_spec *policies, const struct model *model)
{
    for (int layer = 0; layer < model->shape.layers; layer++) {
        const struct policy_spec own = own_policy(model, layer);
        if (policies[layer].kind != POLICY_FULL && !policy_same(&policies[layer], &own))
            return true;
    }
    return false;
}

static bool is_intact(const struct policy_spec *policies, const struct model *model, int64_t segment,
                      int64_t position)
{
    const int64_t segment_first = position / segment * segment;
    for (int layer = 0; layer < model->shape.layers; layer++) {
        const struct policy_spec own = own_policy(model, layer);
        if (policy_exact_from(&policies[layer], position, segment_first) >
            policy_near_first(&own, position, segment_first))
            return false;
    }
    return true;
}

/* What a token misses a later one misses, too. */
int64_t layers_intact(const struct policy_spec *policies, const struct model *model, int64_t segment, int64_t n)
{
    int64_t intact = 0, end = n;
    while (intact < end) {
        const int64_t middle = intact + (end - intact) / 2;
        if (is_intact(policies, model, segment, middle))
            intact = middle + 1;
        else
            end = middle;
    }
    return intact;
}

void layers_warn_beyond(const struct policy_spec *policies, const struct model *model, int64_t segment, int64_t n)
{
    const struct policy_spec *furthest = NULL;
    int64_t most = model->context;
    for (int layer = 0; layer < model->shape.layers; layer++) {
        const int64_t reach = policy_reach(&policies[layer], i64_max(0, n - segment), n);
        if (policies[layer].kind == POLICY_FULL || reach <= most)
            continue;
        most = reach;
        furthest = &policies[layer];
    }
    if (!furthest)
        return;
    char policy[256];
    policy_describe(furthest, policy, sizeof policy);
    log_warn("policy %s takes up to %" PRId64 " positions, with segments and answers of %" PRId64
             " tokens, beyond the %" PRId64
             " that the model's positions reach: expect worse answers (smaller parameters, a smaller --segment or "
             "--positions yarn would do)",
             policy, most, segment, model->context);
}

/* A query sees all that is before it, until that is more than the policy shows. */
static double keys_seen(const struct policy_spec *spec, int64_t n)
{
    const double tokens = (double)n, causal = tokens * tokens / 2;
    const double most = (double)(policy_near_reach(spec) + policy_kept(spec));
    return spec->kind == POLICY_FULL || tokens <= most ? causal : tokens * most - most * most / 2;
}

/* Queries search once something lies behind their near part: the mean one among half of what does in the end, or
 * among as much as the policy keeps. */
static double keys_searched(const struct policy_spec *spec, int64_t n)
{
    const double searching = (double)(n - policy_near_reach(spec));
    if (searching <= 0 || policy_past(spec) != PAST_FAR)
        return 0;
    const double half = searching / 2, kept = (double)spec->far;
    return searching * retrieve_products(kept > 0 && kept < half ? kept : half);
}

double layers_keys_seen(const struct policy_spec *policies, int layers, int64_t n)
{
    double seen = 0;
    for (int layer = 0; layer < layers; layer++)
        seen += keys_seen(&policies[layer], n);
    return seen;
}

double layers_keys_searched(const struct policy_spec *policies, int layers, int64_t n)
{
    double searched = 0;
    for (int layer = 0; layer < layers; layer++)
        searched += keys_searched(&policies[layer], n);
    return searched;
}

void layers_describe(const struct policy_spec *policies, int layers, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (int layer = 0; layer < layers && used < size; layer++) {
        int same = 0, before = 0;
        for (int other = 0; other < layers; other++)
            if (policy_same(&policies[other], &policies[layer])) {
                before += other < layer;
                same++;
            }
        if (before > 0)
            continue;
        char one[256];
        policy_describe(&policies[layer], one, sizeof one);
        used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", one);
        if (same < layers && used < size)
            used += (size_t)snprintf(out + used, size - used, " x%d", same);
    }
}

/* "window=1020", "form=mean|max|used". */
static void print_parameter(const struct policy_parameter *p, FILE *out)
{
    char left[64];
    if (p->words)
        snprintf(left, sizeof left, "%s=%s", p->name, p->words);
    else
        snprintf(left, sizeof left, "%s=%lld", p->name, (long long)p->fallback);
    fprintf(out, "      %-26s %s\n", left, p->help);
}

void layers_help(FILE *out)
{
    fprintf(out, "Policies, NAME[:KEY=N,...], with their parameters and what these are by default\n\n");
    for (int kind = 0; kind < POLICY_KINDS; kind++) {
        const struct policy *policy = policy_of((enum policy_kind)kind);
        fprintf(out, "  %-15s %s\n", policy->name, policy->purpose);
        for (const struct policy_parameter *p = policy->parameters; p->name; p++)
            print_parameter(p, out);
    }
}
