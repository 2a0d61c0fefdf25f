#include "pipeline/asked.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "pipeline/budget.h"
#include "pipeline/layers.h"
#include "pipeline/positions.h"

/* How a document beyond the context is read as a whole, where the user does not say. */
static const char BEYOND_THE_CONTEXT[] = "retrieval";

/* "NAME[:KEY=N,...]", or full where nothing is said. */
static int parse_policy(const char *text, struct policy_spec *out, struct error *err)
{
    *out = (struct policy_spec){.kind = POLICY_FULL};
    if (text && strcmp(text, "hierarchical") == 0)
        return error_set(err, ERROR_USAGE, "a hierarchical policy is a table: give it with --layers");
    return text ? policy_parse(text, out, err) : 0;
}

bool asked_extends(const struct options *options, const struct model *model)
{
    return options->strategy == STRATEGY_WHOLE && !options->policy && !options->layers && !options->against &&
           !options->truncate && !layers_all_own(model);
}

/* Unless what a token sees follows from its position alone. */
static bool policy_heeds_segments(const char *text)
{
    struct policy_spec spec;
    struct error none;
    return parse_policy(text, &spec, &none) != 0 || (spec.kind != POLICY_FULL && spec.kind != POLICY_WINDOW);
}

bool asked_heeds_segments(const struct options *options, const struct model *model)
{
    return policy_heeds_segments(options->policy) || policy_heeds_segments(options->against) || options->layers ||
           asked_extends(options, model) || position_method_follows(&model->positions);
}

/* What nobody has asked for stays within the positions that the model knows. */
static void fit_window(struct policy_spec *spec, int64_t context)
{
    const int64_t beyond = policy_reach(spec, 0, INT64_MAX) - context;
    if (beyond > 0)
        spec->window = i64_max(1, spec->window - beyond);
}

int asked_beyond(const struct options *options, const struct model *model, struct policy_spec *out,
                 struct error *err)
{
    if (policy_parse(BEYOND_THE_CONTEXT, out, err) != 0)
        return -1;
    fit_window(out, model->context);
    return options->memory_budget ? budget_apply(options, model, out, err) : 0;
}

/* Why a budget has no policy to bound, and what to do. */
static const char *no_policy(const struct options *options)
{
    if (options->against)
        return "with --against none is chosen by itself: give one, as --policy retrieval";
    if (options->truncate)
        return "with --truncate none is chosen by itself: give one, as --policy retrieval";
    if (options->command == COMMAND_NEEDLE)
        return "give one, as --policy retrieval";
    return "give one, as --policy retrieval, or --strategy whole";
}

/* The budget is the policy's; without a policy it is for what is beyond the context. */
static int apply_budget(const struct options *options, const struct model *model, struct policy_spec *spec,
                        struct error *err)
{
    struct policy_spec beyond;
    if (!options->memory_budget)
        return 0;
    if (layers_all_own(model))
        return error_set(err, ERROR_USAGE, "--memory-budget: every layer of this model has a window of its own");
    if (options->layers)
        return error_set(err, ERROR_USAGE,
                         "--memory-budget bounds one policy, and --layers names others: give memory=, slots= or "
                         "window= in its lines and in --policy");
    if (options->policy)
        return budget_apply(options, model, spec, err);
    if (asked_extends(options, model))
        return asked_beyond(options, model, &beyond, err);
    return error_set(err, ERROR_USAGE, "--memory-budget bounds the memory of a policy: %s", no_policy(options));
}

/* A policy that is asked for by `option` must be that of some layer; full is what they have without. */
static int check_in_force(const char *option, const struct policy_spec *asked, const struct model *model,
                          const struct policy_spec *policies, struct error *err)
{
    for (int layer = 0; layer < model->shape.layers; layer++)
        if (asked->kind == POLICY_FULL || policy_same(&policies[layer], asked))
            return 0;
    return error_set(err, ERROR_USAGE, "%s %s would be that of no layer: %s", option, policy_of(asked->kind)->name,
                     layers_all_own(model) ? "each has a window of its own, which only --layers changes"
                                           : "--layers names others for all of them");
}

int asked_policies(const struct options *options, const struct model *model, struct policy_spec *general,
                   struct policy_spec *policies, struct error *err)
{
    if (parse_policy(options->policy, general, err) != 0 || apply_budget(options, model, general, err) != 0 ||
        layers_choose(general, options->layers, model, policies, err) != 0)
        return -1;
    return check_in_force("--policy", general, model, policies, err);
}

int asked_against(const struct options *options, const struct model *model, struct policy_spec *general,
                  struct policy_spec *policies, struct error *err)
{
    if (parse_policy(options->against, general, err) != 0 ||
        layers_choose(general, NULL, model, policies, err) != 0)
        return -1;
    return check_in_force("--against", general, model, policies, err);
}

void asked_warn(const struct options *options, const struct model *model, bool bounded)
{
    char replaced[POSITIONS_DESCRIPTION];
    if (positions_replace(model, replaced, sizeof replaced))
        log_warn("positions %s (--positions)", replaced);
    if (options->context > model->context && !bounded)
        log_warn(
            "--context %" PRId64 " is beyond the %" PRId64
            " tokens that the model's positions reach: expect worse answers (--positions yarn reaches further)",
            options->context, model->context);
}
