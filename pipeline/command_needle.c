/* needle: trials of a grid through a session, from the command line to the table. Rank 0 makes the trials and
 * writes down how they end; the other ranks only work. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/line.h"
#include "base/log.h"
#include "base/num.h"
#include "io/digest.h"
#include "io/durable.h"
#include "io/store_text.h"
#include "pipeline/asked.h"
#include "pipeline/commands.h"
#include "pipeline/corpus.h"
#include "pipeline/identity.h"
#include "pipeline/layers.h"
#include "pipeline/needle_parts.h"
#include "pipeline/needle_report.h"
#include "pipeline/positions.h"
#include "pipeline/report.h"
#include "pipeline/session.h"

enum { POLICY_TEXT = 256, DESCRIBED = POLICY_TEXT + POSITIONS_DESCRIPTION + 16 };

/* What rank 0 holds beside the session. */
struct needles {
    struct session *session;
    struct identity identity;
    char config[DIGEST_HEX_BYTES];
    struct policy_spec asked; /* --policy, or full */
    char policy[NEEDLE_SETTINGS][POLICY_TEXT], positions[NEEDLE_SETTINGS][POSITIONS_DESCRIPTION];
    char described[NEEDLE_SETTINGS][DESCRIBED];
    struct needle_grid grid;
    struct haystack *text;
    struct needle_material *material;
    struct durable_lock *lock;
    struct needle_log *log;
    char *parts; /* what was taken over from which parts, or "" */
    struct arena names;
    const char *model; /* its path as text */
    struct needle_identity lines;
    struct policy_spec *policies; /* [NEEDLE_SETTINGS][layers] */
    struct needle_run *run;
    struct progress *progress;
    struct meter *meter;
};

/* ---- what is to be done ---- */

/* The text of document `i` and a line break. One without text is left out, with a line on stderr, for a folder may
 * have pictures in it; but not the only one. */
static int add_hay(const struct corpus *corpus, int64_t i, const struct document_text *document, FILE *out,
                   struct error *err)
{
    const char *path = corpus->documents[i].path;
    if (document->skipped && corpus->n_documents == 1)
        return document_require_text(document, path, err);
    if (document->skipped) {
        line_print(stderr, "left out of the haystack: %s: %s", path, document->skipped);
        return 0;
    }
    fwrite(document->text, 1, document->length, out);
    fputc('\n', out);
    return 0;
}

/* All that the files of --haystack say, one behind the other; its digest goes to `hex`. */
static int read_haystack(struct needles *n, char hex[DIGEST_HEX_BYTES], struct error *err)
{
    const struct string_list *paths = &n->session->options->haystack;
    const struct corpus_options all = {.output = n->session->options->output};
    char *text = NULL;
    size_t length = 0;
    hex[0] = '\0';
    if (paths->count == 0)
        return 0;
    struct corpus *corpus = corpus_open(paths->items, (int)paths->count, &all, err);
    FILE *out = corpus ? open_memstream(&text, &length) : NULL;
    int status = out ? 0 : corpus ? error_errno(err, "no memory for the haystack") : -1;
    if (corpus)
        corpus_log(corpus);
    for (int64_t i = 0; status == 0 && i < corpus->n_documents; i++) {
        struct document_text document = {0};
        if ((status = corpus_read(corpus, i, &document, err)) == 0)
            status = add_hay(corpus, i, &document, out, err);
        document_text_free(&document);
    }
    if (out && fclose(out) != 0 && status == 0)
        status = error_set(err, ERROR_RESOURCE, "no memory for the haystack");
    if (status == 0)
        status = digest_bytes(text, length, hex, err);
    if (status == 0 && !(n->text = haystack_create(text, length, err)))
        status = error_wrap(err, "%s", paths->items[0]);
    free(text);
    corpus_free(corpus);
    return status;
}

/* What decides an answer beside the place in the grid. */
static int make_identity(struct needles *n, const char *haystack, struct error *err)
{
    const struct options *options = n->session->options;
    char all[2 * DIGEST_HEX_BYTES];
    size_t replaced;
    if (!(n->model = store_text_clean(&n->names, options->model, strlen(options->model), &replaced, err)))
        return -1;
    report_hashing(options->model, n->session->opened.model_bytes, stderr);
    if (identity_make(&n->identity, options, &n->session->opened, err) != 0)
        return -1;
    snprintf(all, sizeof all, "%s|%s", n->identity.config_hash, haystack);
    return digest_bytes(all, strlen(all), n->config, err);
}

/* How both settings read, and what they can hold. policies [layers] is scratch. */
static int judge_settings(struct needles *n, struct policy_spec *policies, struct needle_limits *out,
                          struct error *err)
{
    const struct options *options = n->session->options;
    const struct model *model = n->session->opened.model;
    const struct policy_spec untouched = {.kind = POLICY_FULL};
    const int layers = model->shape.layers;
    if (asked_policies(options, model, &n->asked, policies, err) != 0)
        return -1;
    const bool bounded = !layers_any_full(policies, layers);
    asked_warn(options, model, bounded);
    const bool differs = !layers_untouched(policies, model) || positions_differ(model);
    out->untouched = differs ? model->file_context : 0;
    out->asked = options->context ? options->context : bounded ? INT64_MAX : model->context;
    layers_describe(policies, layers, n->policy[NEEDLE_ASKED], POLICY_TEXT);
    positions_describe(options, model, n->positions[NEEDLE_ASKED], POSITIONS_DESCRIPTION);
    if (layers_choose(&untouched, NULL, model, policies, err) != 0)
        return -1;
    layers_describe(policies, layers, n->policy[NEEDLE_UNTOUCHED], POLICY_TEXT);
    snprintf(n->positions[NEEDLE_UNTOUCHED], POSITIONS_DESCRIPTION, "positions as in the model's file");
    for (int i = 0; i < NEEDLE_SETTINGS; i++) {
        char described[DESCRIBED];
        snprintf(described, sizeof described, "policy %s, %s", n->policy[i], n->positions[i]);
        memcpy(n->described[i], described, sizeof described);
    }
    return 0;
}

static int make_grid(struct needles *n, struct error *err)
{
    const struct model *model = n->session->opened.model;
    struct needle_limits limits;
    struct policy_spec *policies = calloc((size_t)model->shape.layers, sizeof *policies);
    if (!policies)
        return error_set(err, ERROR_RESOURCE, "no memory for the policies of %d layers", model->shape.layers);
    int status = judge_settings(n, policies, &limits, err);
    free(policies);
    if (status == 0)
        status = needle_grid_parse(&n->grid, n->session->options, &limits, model->file_context, err);
    return status;
}

/* A trial that cannot be had is told before anything is begun. Trials of a task and length differ by a few tokens
 * in what they need: where there is room for half as much again, the first one speaks for all. */
static int check_tasks(const struct needles *n, struct error *err)
{
    const int64_t size = needle_grid_size(&n->grid);
    bool roomy = false;
    for (int64_t i = 0; i < size; i++) {
        const struct needle_place place = needle_grid_place(&n->grid, i);
        const struct needle_cell cell = needle_grid_cell(&n->grid, &place);
        const bool first = place.depth == 0 && place.trial == 0;
        int64_t least;
        if (place.setting != NEEDLE_ASKED || !needle_grid_has(&n->grid, &place) || (roomy && !first))
            continue;
        if (needle_trial_check(n->material, &cell, &least, err) != 0)
            return -1;
        roomy = least + least / 2 <= cell.length;
    }
    return 0;
}

/* ---- what is there ---- */

static int gather_parts(struct needles *n, struct error *err)
{
    size_t length;
    FILE *said = open_memstream(&n->parts, &length);
    if (!said)
        return error_errno(err, "no memory for what the parts have");
    const int status = needle_parts_gather(n->log, n->session->options->output, said, err);
    if (fclose(said) != 0 && status == 0)
        return error_set(err, ERROR_RESOURCE, "no memory for what the parts have");
    return status;
}

static int open_output(struct needles *n, struct error *err)
{
    const char *output = n->session->options->output;
    const struct needle_visitor visitor = {needle_run_note, n->run};
    char *path;
    if (durable_make_directories(output, err) != 0 || !(n->lock = durable_lock_take(output, err)))
        return -1;
    if (asprintf(&path, "%s/trials.jsonl", output) < 0)
        return error_set(err, ERROR_RESOURCE, "no memory for the name of a file");
    n->log = needle_log_open(path, n->config, &visitor, err);
    free(path);
    return n->log ? gather_parts(n, err) : -1;
}

static int make_run(struct needles *n, struct error *err)
{
    const struct session *s = n->session;
    const struct needle_run_options options = {
        .grid = &n->grid,
        .material = n->material,
        .tokenizer = s->opened.tokenizer,
        .policy = {n->policy[NEEDLE_ASKED], n->policy[NEEDLE_UNTOUCHED]},
        .positions = {n->positions[NEEDLE_ASKED], n->positions[NEEDLE_UNTOUCHED]},
    };
    return (n->run = needle_run_create(&options, err)) ? open_output(n, err) : -1;
}

/* Where only untouched trials are left, setting 0 is there all the same, for a token. */
static int set_up(struct needles *n, struct error *err)
{
    struct session *s = n->session;
    const struct needle_counts counts = needle_run_counts(n->run);
    struct setup *setup = &s->setup;
    *setup = (struct setup){.reference = -1};
    for (int task = 0; task < n->grid.n_tasks; task++)
        setup->max_new = i64_max(setup->max_new, needle_task_max_new(n->grid.tasks[task]));
    if (counts.tokens_left > 0)
        setup->n_settings = counts.longest[NEEDLE_UNTOUCHED] > 0 ? 2 : 1;
    setup->settings[NEEDLE_ASKED] = (struct setup_setting){
        .general = n->asked, .max_tokens = i64_max(1, counts.longest[NEEDLE_ASKED]), .overridden = 1};
    setup->settings[NEEDLE_UNTOUCHED] = (struct setup_setting){
        .general = {.kind = POLICY_FULL}, .max_tokens = counts.longest[NEEDLE_UNTOUCHED], .file_positions = 1};
    const int64_t longest = i64_max(counts.longest[NEEDLE_ASKED], counts.longest[NEEDLE_UNTOUCHED]);
    setup->segment = i64_min(options_segment(s->options), i64_max(1, longest));
    if (!(n->policies = calloc(NEEDLE_SETTINGS * (size_t)s->opened.model->shape.layers, sizeof *n->policies)))
        return error_set(err, ERROR_RESOURCE, "no memory for the policies of %d layers",
                         s->opened.model->shape.layers);
    const struct setup_machine machine = {
        .options = s->options,
        .model = s->opened.model,
        .ranks = s->world.size,
        .place = s->place,
        .jobs = counts.trials, /* also those that are done: a run that goes on has the ring it began with */
        .before = needle_log_dtype(n->log),
        .policies = n->policies,
    };
    if (setup_choose(setup, &machine, err) != 0)
        return -1;
    layers_warn_beyond(n->policies, s->opened.model, i64_max(setup->segment, setup->max_new),
                       setup->settings[NEEDLE_ASKED].max_tokens);
    return 0;
}

static int prepare(struct needles *n, struct error *err)
{
    const struct session *s = n->session;
    char haystack[DIGEST_HEX_BYTES];
    if (make_grid(n, err) != 0 || read_haystack(n, haystack, err) != 0 ||
        !(n->material = needle_material_create(s->opened.tokenizer, n->text, (uint64_t)s->options->seed, err)) ||
        check_tasks(n, err) != 0 || make_identity(n, haystack, err) != 0 || make_run(n, err) != 0)
        return -1;
    return set_up(n, err);
}

/* ---- the work ---- */

static int open_run(struct needles *n, struct error *err)
{
    const struct session *s = n->session;
    const struct needle_counts counts = needle_run_counts(n->run);
    const struct progress_totals totals = {.documents = counts.trials,
                                           .tokens = {counts.tokens_left, counts.answers_left}};
    const int groups = s->world.size / s->setup.ring;
    char described[DESCRIBED + 256];
    struct progress_options options;
    progress_defaults(&options, stderr);
    options.unit = "trial";
    if (!(n->progress = progress_create(stderr, &options, &totals, err)) ||
        !(n->meter = meter_create(n->progress, groups, &totals, counts.done, err)))
        return -1;
    n->lines =
        (struct needle_identity){n->config, n->model, dtype_name((enum dtype)s->setup.dtype), LONGHAUL_VERSION};
    if (*n->parts)
        progress_note(n->progress, "%s", n->parts);
    snprintf(described, sizeof described,
             "%" PRId64 " trials (%" PRId64 " done before), %" PRId64
             " tokens; %d ranks in %d ring groups of %d, %d threads a rank, %s, %s",
             counts.trials, counts.done, counts.tokens_left, s->world.size, groups, s->setup.ring, s->setup.threads,
             n->lines.dtype, n->described[NEEDLE_ASKED]);
    progress_note(n->progress, "%s", described);
    log_info("%s", described);
    needle_run_open(n->run, n->log, &n->lines, n->meter);
    return 0;
}

static int show(const struct needles *n, struct error *err)
{
    const char *output = n->session->options->output;
    const char *slash = strrchr(n->model, '/');
    const struct needle_report report = {
        .grid = &n->grid,
        .run = n->run,
        .model = slash ? slash + 1 : n->model,
        .described = {n->described[NEEDLE_ASKED], n->described[NEEDLE_UNTOUCHED]},
    };
    char *path;
    if (asprintf(&path, "%s/needle.svg", output) < 0)
        return error_set(err, ERROR_RESOURCE, "no memory for the name of a file");
    int status = needle_report_print(&report, stdout, err);
    if (status == 0)
        status = needle_report_draw(&report, path, err);
    free(path);
    progress_note(n->progress, "trials: %s/trials.jsonl, heat map: %s/needle.svg", output, output);
    return status;
}

static enum error_code lead(struct needles *n)
{
    struct error err = {0};
    const struct session_source source = needle_run_source(n->run);
    session_work(n->session, &source);
    if (show(n, &err) != 0)
        session_abort(&err);
    const struct needle_counts counts = needle_run_counts(n->run);
    const int64_t undone = counts.trials - counts.done - counts.failed;
    if (undone > 0) {
        progress_note(n->progress, "stopped with %" PRId64 " trials undone: the same command goes on", undone);
        return ERROR_INTERRUPTED;
    }
    if (counts.failed > 0)
        progress_note(n->progress, "%" PRId64 " trials failed: see trials.jsonl; the same command tries them again",
                      counts.failed);
    return counts.failed > 0 ? ERROR_PARTIAL : ERROR_NONE;
}

static void clear(struct needles *n)
{
    free(n->policies);
    meter_free(n->meter);
    progress_free(n->progress);
    needle_run_free(n->run);
    needle_log_close(n->log);
    free(n->parts);
    durable_lock_release(n->lock);
    needle_material_free(n->material);
    haystack_free(n->text);
    identity_clear(&n->identity);
    arena_free(&n->names);
}

int command_needle(const struct options *options, enum error_code *code, struct error *err)
{
    struct session s;
    struct needles n = {.session = &s};
    int status = session_open(&s, options, err);
    const bool leads = status == 0 && s.world.rank == 0;
    if (status == 0)
        status = session_agree(&s, leads ? prepare(&n, err) : 0, err);
    if (status == 0)
        status = session_start(&s, n.policies, err);
    if (status == 0)
        status = session_agree(&s, leads ? open_run(&n, err) : 0, err);
    if (status == 0 && leads)
        *code = lead(&n);
    else if (status == 0)
        session_work(&s, NULL);
    clear(&n);
    session_close(&s, err);
    return status;
}
