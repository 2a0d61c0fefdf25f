#include "pipeline/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pipeline/asked.h"
#include "pipeline/layers.h"
#include "pipeline/positions.h"

/* Tokens that neighbouring chunks share, where the user does not say. */
enum { DEFAULT_OVERLAP = 512 };

/* Receipts are measured on as many first tokens of a document as the untouched model was trained to read, up to a
 * length that costs little beside a long document; where there is no memory for that on fewer, down to another. */
enum { RECEIPT_MOST = 16384, RECEIPT_LEAST = 4096 };

/* ---- what the options mean for this model and machine ---- */

/* *out = the text of --prompt, to be freed, or NULL. */
static int read_instruction(const struct options *options, char **out, struct error *err)
{
    const char *const path = options->prompt;
    struct document_text text = {0};
    *out = NULL;
    if (!path)
        return 0;
    int status = document_read(path, &text, err);
    if (status == 0)
        status = document_require_text(&text, path, err);
    if (status == 0 && text.length == 0)
        status = error_set(err, ERROR_INPUT, "%s: the prompt file has no text", path);
    if (status == 0 && memchr(text.text, 0, text.length))
        status = error_set(err, ERROR_INPUT, "%s: the prompt has a NUL, which would end it there", path);
    if (status == 0 && !(*out = strndup(text.text, text.length)))
        status = error_set(err, ERROR_RESOURCE, "%s: no memory for the prompt", path);
    document_text_free(&text);
    return status;
}

/* What the user asks of the layers, [PLAN_UNTOUCHED + 1][layers]: as asked and, with --against, what to compare
 * with; otherwise the others follow from the documents. To be freed; NULL on failure. */
static struct policy_spec *choose_policies(const struct options *options, const struct model *model,
                                           struct policy_spec *asked, struct policy_spec *against,
                                           struct error *err)
{
    const size_t layers = (size_t)model->shape.layers;
    const struct policy_spec full = {.kind = POLICY_FULL};
    struct policy_spec *policies = calloc((PLAN_UNTOUCHED + 1) * layers, sizeof *policies);
    if (!policies)
        error_set(err, ERROR_RESOURCE, "no memory for the policies of %d layers", model->shape.layers);
    else if (asked_policies(options, model, asked, policies, err) == 0 &&
             (!options->against || asked_against(options, model, against, policies + layers, err) == 0) &&
             layers_choose(&full, NULL, model, policies + PLAN_UNTOUCHED * layers, err) == 0)
        return policies;
    free(policies);
    return NULL;
}

struct policy_spec *plan_policies(const struct plan *plan, int setting)
{
    return plan->policies + setting * plan->opened->model->shape.layers;
}

int plan_check(const struct options *options, const struct opened_model *opened, struct error *err)
{
    struct policy_spec asked, against;
    struct policy_spec *policies = choose_policies(options, opened->model, &asked, &against, err);
    char *instruction = NULL;
    const int status = policies ? read_instruction(options, &instruction, err) : -1;
    free(policies);
    free(instruction);
    return status;
}

/* How receipts are measured: where the settings that may have one lose anything. */
static int limit_receipts(struct plan *plan, struct error *err)
{
    const struct model *model = plan->opened->model;
    struct work_limits *limits = &plan->limits;
    struct policy_spec beyond, *policies[] = {plan_policies(plan, 0), plan_policies(plan, 1)};
    limits->bos = tokenizer_add_bos(plan->opened->tokenizer) ? 1 : 0;
    limits->receipt = i64_min(RECEIPT_MOST, model->file_context) - limits->bos;
    if (limits->extends && (asked_beyond(plan->options, model, &beyond, err) != 0 ||
                            layers_choose(&beyond, NULL, model, policies[1], err) != 0))
        return -1;
    for (int i = 0; i < 2 && !positions_differ(model); i++)
        limits->intact[i] = layers_intact(policies[i], model, options_segment(plan->options), model->file_context);
    return 0;
}

static int set_limits(struct plan *plan, struct error *err)
{
    const struct options *options = plan->options;
    const struct model *model = plan->opened->model;
    const int64_t reach = model->context;
    struct work_limits *limits = &plan->limits;
    const int layers = model->shape.layers;
    const bool bounded = !layers_any_full(plan_policies(plan, 0), layers) &&
                         (!options->against || !layers_any_full(plan_policies(plan, 1), layers));
    *limits = (struct work_limits){
        .strategy = (enum strategy)options->strategy,
        .context = options->context ? options->context
                   : bounded        ? PLAN_UNBOUNDED
                                    : reach,
        .extends = asked_extends(options, model),
        .compares = options->against != NULL,
        .chunk = options->chunk,
        .overlap = options->overlap < 0 ? DEFAULT_OVERLAP : options->overlap,
        .overlap_asked = options->overlap >= 0,
        .max_new = options->max_new,
        .truncate = options->truncate != 0,
        .lossy = layers_lossy(plan->policies, model),
    };
    asked_warn(options, model, bounded);
    if (limit_receipts(plan, err) != 0)
        return -1;
    if (plan->task->job == JOB_SCORE) {
        limits->room[ROLE_WHOLE] = limits->context - limits->bos;
        return 0;
    }
    for (int role = 0; role < ROLE_COUNT; role++) {
        int64_t overhead;
        if (prompt_overhead(&plan->prompter, (enum prompt_role)role, &overhead, err) != 0)
            return -1;
        limits->room[role] = limits->context - overhead - limits->max_new;
    }
    limits->room[ROLE_REFINE] -= limits->max_new; /* the answer so far */
    return 0;
}

/* ---- the documents ---- */

static void end_document(struct plan_document *document, enum result_status status, const char *reason)
{
    document->status = status;
    error_shorten(reason, document->reason, sizeof document->reason);
}

/* A bad document is recorded as failed. A lack of memory is not, as the record would outlive it: -1 then. */
static int fail_document(struct plan_document *document, struct error *err)
{
    if (err->code == ERROR_RESOURCE)
        return error_wrap(err, "%s", document->id);
    end_document(document, RESULT_FAILED, err->text);
    *err = (struct error){0};
    return 0;
}

/* Tokens and chunks of one document that has text. -1 only when the run cannot go on. */
static int plan_text(struct plan *plan, struct plan_document *document, struct error *err)
{
    const struct text text = {document->text.text, document->text.length};
    struct token_list tokens = {0};
    if (tokenizer_encode(plan->opened->tokenizer, text, &tokens, err) != 0) {
        token_list_free(&tokens);
        return fail_document(document, err);
    }
    const struct chunk_text to_cut = {document->text.text, tokens.count, tokens.ends};
    work_init(&document->work, tokens.ids, tokens.count);
    tokens.ids = NULL;
    document->unknown_bytes = tokens.unknown_bytes;
    int status = work_plan(&document->work, plan->task, &plan->limits, &to_cut, err);
    token_list_free(&tokens);
    if (status == 0 && document->work.failed)
        end_document(document, RESULT_FAILED, document->work.failure.text);
    else if (status == 0 && document->work.n_nodes == 0)
        end_document(document, RESULT_SKIPPED, "no tokens");
    return status;
}

/* Whether an earlier run has settled this very file; a failure counts unless it is to be tried again. */
static bool is_done(struct plan *plan, struct plan_document *document)
{
    struct results_entry entry;
    if (!plan->results || !results_find(plan->results, document->id, &entry))
        return false;
    document->attempts = entry.attempts;
    if (strcmp(entry.sha256, document->text.sha256) != 0 ||
        (entry.status == RESULT_FAILED && plan->options->retry_failed))
        return false;
    document->done = true;
    document->status = entry.status;
    plan->done++;
    return true;
}

/* Whether an earlier run has an answer, of whatever the file was then. */
static bool has_answer(const struct plan *plan, const struct plan_document *document)
{
    struct results_entry entry;
    return plan->results && results_find(plan->results, document->id, &entry) &&
           (entry.status == RESULT_OK || entry.status == RESULT_PARTIAL);
}

/* A document that could not be read has failed; but what the system refuses now says nothing of the file, and must
 * not cost the answer that there is. -1 only when the run cannot go on. */
static int plan_unread(struct plan *plan, struct plan_document *document, struct error *err)
{
    const bool refused = err->code != ERROR_INPUT;
    if (is_done(plan, document)) {
        *err = (struct error){0};
        return 0;
    }
    if (fail_document(document, err) != 0)
        return -1;
    if (!refused || !has_answer(plan, document))
        return 0;
    document->done = document->kept = true;
    plan->done++;
    log_warn("%s: not read, its earlier answer is kept: %s", document->id, document->reason);
    return 0;
}

static int plan_document(struct plan *plan, int64_t index, struct error *err)
{
    struct plan_document *document = &plan->documents[index];
    const struct walk_entry *source = &plan->corpus->documents[index];
    document->id = source->id;
    document->path = source->path;
    document->status = RESULT_PENDING;
    if (corpus_read(plan->corpus, index, &document->text, err) != 0)
        return plan_unread(plan, document, err);
    if (is_done(plan, document))
        return 0;
    if (document->text.skipped) {
        end_document(document, RESULT_SKIPPED, document->text.skipped);
        return 0;
    }
    if (plan_text(plan, document, err) != 0)
        return -1;
    if (document->status == RESULT_PENDING) {
        plan->tokens += document->work.n_tokens - document->work.dropped;
        plan->chunks += document->work.chunks.count;
    }
    return 0;
}

struct corpus *plan_corpus(const struct options *options, struct error *err)
{
    const struct corpus_options which = {
        .include = {options->include.items, options->include.count},
        .exclude = {options->exclude.items, options->exclude.count},
        .output = options->output,
    };
    return corpus_open(options->operands, options->n_operands, &which, err);
}

static int plan_documents(struct plan *plan, struct error *err)
{
    plan->documents = calloc((size_t)plan->corpus->n_documents + 1, sizeof *plan->documents);
    if (!plan->documents)
        return error_set(err, ERROR_RESOURCE, "no memory for %" PRId64 " documents", plan->corpus->n_documents);
    for (plan->n_documents = 0; plan->n_documents < plan->corpus->n_documents; plan->n_documents++) {
        const int status = plan_document(plan, plan->n_documents, err);
        document_text_release(&plan->documents[plan->n_documents].text); /* a run goes by the tokens */
        if (status != 0)
            return -1;
    }
    return 0;
}

/* ---- what is read, and how ---- */

/* Tokens of a prompt and its answer beside the material, in whatever role. */
static int64_t most_beside(const struct plan *plan)
{
    const struct work_limits *limits = &plan->limits;
    int64_t room = limits->room[ROLE_WHOLE];
    for (int role = 0; role < ROLE_COUNT && plan->task->job == JOB_GENERATE; role++)
        room = i64_min(room, limits->room[role]);
    return limits->context - room;
}

/* The longest sequence of any job of a setting: a chunk, or answers put together, with its prompt and its own
 * answer; 0: it has no job. */
static int64_t longest_job(const struct plan *plan, int setting)
{
    int64_t longest = 0;
    for (int64_t i = 0; i < plan->n_documents; i++) {
        const struct work *work = &plan->documents[i].work;
        const struct chunk_list *chunks = &work->chunks;
        for (int64_t c = 0; c < chunks->count && work->setting == setting; c++)
            longest = i64_max(longest, chunks->items[c].end_token - chunks->items[c].first_token);
        if (chunks->count > 1 && plan->task->job == JOB_GENERATE)
            longest = i64_max(longest, work_reduction_tokens(chunks->count, &plan->limits));
    }
    return longest ? longest + most_beside(plan) : 0;
}

/* Of the sequences that receipts are measured on; 0: there are none. */
static int64_t longest_receipt(const struct plan *plan)
{
    int64_t longest = 0;
    for (int64_t i = 0; i < plan->n_documents; i++)
        longest = i64_max(longest, plan->documents[i].work.receipt_tokens);
    return longest > 0 ? longest + 1 : 0; /* BOS */
}

/* The next setting is the untouched model, for receipts. */
static void add_untouched(struct setup *setup, int64_t receipt)
{
    setup->reference = setup->n_settings;
    setup->settings[setup->n_settings++] =
        (struct setup_setting){.general = {.kind = POLICY_FULL}, .max_tokens = receipt, .file_positions = 1};
}

/* What the settings behind the first are for, if there are any; max_tokens is that of their longest job. */
static int choose_others(struct plan *plan, struct error *err)
{
    struct setup *setup = &plan->setup;
    struct setup_setting *second = &setup->settings[1];
    const int64_t receipt = longest_receipt(plan), beyond = longest_job(plan, 1);
    setup->n_settings = 1;
    if (plan->options->against) {
        setup->reference = 1;
        setup->n_settings = 2;
        *second = (struct setup_setting){.general = plan->against, .max_tokens = setup->settings[0].max_tokens};
        return 0;
    }
    if (plan->limits.extends && beyond > 0) {
        setup->n_settings = 2;
        *second = (struct setup_setting){.max_tokens = i64_max(beyond, receipt), .overridden = 1};
        if (asked_beyond(plan->options, plan->opened->model, &second->general, err) != 0)
            return -1;
        if (receipt > 0 && !positions_differ(plan->opened->model)) { /* the first is the untouched model */
            setup->reference = 0;
            setup->settings[0].max_tokens = i64_max(setup->settings[0].max_tokens, receipt);
            return 0;
        }
    } else {
        setup->settings[0].max_tokens = i64_max(setup->settings[0].max_tokens, receipt);
    }
    if (receipt > 0)
        add_untouched(setup, receipt);
    return 0;
}

/* Setting 0 is there even where all documents are read under setting 1, which is the one for the others. */
static int choose_settings(struct plan *plan, struct error *err)
{
    struct setup *setup = &plan->setup;
    setup->reference = -1;
    setup->settings[0] = (struct setup_setting){
        .general = plan->asked, .max_tokens = i64_max(1, longest_job(plan, 0)), .overridden = 1};
    if (choose_others(plan, err) != 0)
        return -1;
    int64_t longest = 0;
    for (int i = 0; i < setup->n_settings; i++)
        longest = i64_max(longest, setup->settings[i].max_tokens);
    setup->segment = i64_min(options_segment(plan->options), longest);
    return 0;
}

/* What rank 0 has of the documents, the positions of a score counted that is being written down. */
static int64_t documents_bytes(const struct plan *plan)
{
    size_t bytes = 0;
    int64_t longest = 0;
    for (int64_t i = 0; i < plan->n_documents; i++) {
        bytes += work_bytes(&plan->documents[i].work);
        longest = i64_max(longest, plan->documents[i].work.score_end);
    }
    return (int64_t)bytes + longest * (int64_t)sizeof(int64_t);
}

static int choose_setup(struct plan *plan, struct error *err)
{
    const struct results_run *before = plan->results ? results_before(plan->results) : NULL;
    plan->ring_before = before && before->ranks == plan->ranks ? (int)before->ring_size : 0;
    const struct setup_machine machine = {
        .options = plan->options,
        .model = plan->opened->model,
        .ranks = plan->ranks,
        .place = plan->place,
        .jobs = plan->chunks,
        .before = before ? before->dtype : "",
        .ring_before = plan->ring_before,
        .documents = documents_bytes(plan),
        .policies = plan->policies,
    };
    plan->setup = (struct setup){
        .scores = plan->task->job == JOB_SCORE,
        .max_new = plan->task->job == JOB_SCORE ? 0 : plan->limits.max_new,
    };
    if (plan->chunks > 0 && choose_settings(plan, err) != 0)
        return -1;
    return setup_choose(&plan->setup, &machine, err);
}

/* Receipts of half as many tokens; false where there are none that could be shorter. */
static bool shorten_receipts(struct plan *plan)
{
    const int64_t longest = longest_receipt(plan);
    if (longest <= RECEIPT_LEAST)
        return false;
    plan->limits.receipt = i64_max(RECEIPT_LEAST - 1, longest / 2);
    for (int64_t i = 0; i < plan->n_documents; i++)
        if (plan->documents[i].work.receipt_tokens > 0)
            work_plan_receipt(&plan->documents[i].work, &plan->limits);
    return true;
}

/* A receipt is worth much, but no run fails for want of the memory for one of more than RECEIPT_LEAST tokens. */
static int set_up(struct plan *plan, struct error *err)
{
    int status = choose_setup(plan, err);
    while (status != 0 && err->code == ERROR_RESOURCE && shorten_receipts(plan)) {
        *err = (struct error){0};
        status = choose_setup(plan, err);
    }
    return status;
}

/* --context is compared with what positions reach where limits are set; what policies reach depends on texts. */
static void warn_of_policies(const struct plan *plan)
{
    const struct setup *setup = &plan->setup;
    const struct model *model = plan->opened->model;
    for (int i = 0; i < setup->n_settings; i++)
        layers_warn_beyond(plan_policies(plan, i), model, i64_max(setup->segment, setup->max_new),
                           setup->settings[i].max_tokens);
}

struct plan *plan_create(const struct options *options, const struct opened_model *opened,
                         const struct plan_around *around, struct error *err)
{
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan) {
        error_set(err, ERROR_RESOURCE, "no memory for the plan");
        return NULL;
    }
    plan->options = options;
    plan->opened = opened;
    plan->task = options->command == COMMAND_SCORE ? &task_score : &task_summarize;
    plan->ranks = around->ranks;
    plan->place = around->place;
    plan->results = around->results;
    plan->corpus = around->corpus;
    if (read_instruction(options, &plan->instruction, err) != 0 ||
        !(plan->policies = choose_policies(options, opened->model, &plan->asked, &plan->against, err)))
        goto fail;
    plan->prompter = (struct prompter){
        .task = plan->task,
        .tokenizer = opened->tokenizer,
        .format = chat_format_detect(opened->tokenizer),
        .instruction = plan->instruction,
    };
    if (set_limits(plan, err) != 0 || plan_documents(plan, err) != 0 || set_up(plan, err) != 0)
        goto fail;
    warn_of_policies(plan);
    return plan;
fail:
    plan_free(plan);
    return NULL;
}

void plan_free(struct plan *plan)
{
    if (!plan)
        return;
    for (int64_t i = 0; plan->documents && i < plan->corpus->n_documents; i++) {
        document_text_free(&plan->documents[i].text);
        work_clear(&plan->documents[i].work);
        free(plan->documents[i].score.buckets);
        free(plan->documents[i].score.reference_buckets);
    }
    free(plan->documents);
    free(plan->instruction);
    free(plan->policies);
    free(plan);
}
