/* The plan: what a run will do, settled on rank 0 before any weight is packed.
 *
 * plan_create reads the model's metadata and the whole corpus, tokenises it, chooses for every document strategy
 * and chunks (pipeline/work.h), and for the run the arithmetic, the ring and the sizes. plan_print shows it.
 * A document that cannot be done is in the plan as failed or skipped, with its reason; it never stops the run, but
 * for a lack of memory.
 */
#ifndef LONGHAUL_PIPELINE_PLAN_H
#define LONGHAUL_PIPELINE_PLAN_H

#include <stdio.h>

#include "base/error.h"
#include "io/document.h"
#include "io/results.h"
#include "pipeline/corpus.h"
#include "pipeline/opened_model.h"
#include "pipeline/options.h"
#include "pipeline/prompt.h"
#include "pipeline/setup.h"
#include "pipeline/task.h"
#include "pipeline/work.h"

struct plan_document {
    const char *id, *path;     /* of the corpus */
    struct document_text text; /* its bytes are let go once they are tokens */
    struct work work;
    enum result_status status; /* RESULT_PENDING: to be done; else SKIPPED or FAILED, or what it was when done */
    char reason[256];
    bool done;             /* settled by an earlier run: nothing to do, nothing to record */
    bool kept;             /* done, and failed in this run alone: it could not be read, and its answer stands */
    int64_t attempts;      /* of earlier runs */
    int64_t unknown_bytes; /* of the text, that the vocabulary has no token for */
    struct plan_score {    /* what a score run has found, once it is done */
        int64_t count;
        double perplexity;
        int64_t n_buckets;
        struct result_bucket *buckets;           /* owned */
        struct result_bucket *reference_buckets; /* owned: under --against, or NULL */
    } score;
    struct result_receipt receipt; /* its numbers, without strings and arrays */
};

/* The effective context where every layer's memory is bounded: no text is as long. */
static const int64_t PLAN_UNBOUNDED = INT64_C(1) << 40;

struct plan {
    const struct options *options; /* borrowed, as the model */
    const struct opened_model *opened;
    const struct task *task;
    char *instruction; /* the text of --prompt, or NULL */
    struct prompter prompter;
    struct work_limits limits;
    const struct corpus *corpus;
    int64_t n_documents;
    struct plan_document *documents;
    int64_t tokens, chunks; /* of the pending documents */
    int64_t done;           /* documents that an earlier run has settled */
    const struct results *results;
    struct setup setup;
    int ranks;
    int ring_before; /* of the results there are, as pipeline/setup.h wants it */
    struct place place;
    struct policy_spec asked;     /* --policy, or full */
    struct policy_spec against;   /* --against, or full */
    struct policy_spec *policies; /* [PLAN_UNTOUCHED + 1][layers], see plan_policies */
};

struct plan_around {
    int ranks;
    struct place place;
    const struct corpus *corpus;
    const struct results *results; /* what is there already, or NULL */
};

/* The corpus that the command line names. */
struct corpus *plan_corpus(const struct options *options, struct error *err);

/* What is wrong with the options for this model and can be told before a document is read or anything written. */
int plan_check(const struct options *options, const struct opened_model *opened, struct error *err);

struct plan *plan_create(const struct options *options, const struct opened_model *opened,
                         const struct plan_around *around, struct error *err);
void plan_free(struct plan *plan);

/* The layers' policies under a setting of the engine, or in the model as it was trained. */
enum { PLAN_UNTOUCHED = ENGINE_SETTINGS };
struct policy_spec *plan_policies(const struct plan *plan, int setting);

/* One document's rows, the totals, memory and the predicted time. */
int plan_print(const struct plan *plan, FILE *out, struct error *err);

/* One line about the choices that were made, for the log and the first message of a run. */
enum { PLAN_DESCRIPTION = 1600 };
void plan_describe(const struct plan *plan, char *out, size_t size);

#endif
