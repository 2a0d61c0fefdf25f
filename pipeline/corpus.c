#include "pipeline/corpus.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

/* Documents before what was left out, each in their order. */
static int separate(struct corpus *corpus, struct error *err)
{
    struct walk *walk = corpus->walk;
    struct walk_entry *sorted = malloc((size_t)walk->count * sizeof *sorted + 1);
    if (!sorted)
        return error_errno(err, "a list of %lld files", (long long)walk->count);
    int64_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < walk->count; i++) {
            const struct walk_entry *entry = &walk->entries[i];
            if ((entry->fate == WALK_LEFT_OUT) == (pass == 1))
                sorted[n++] = *entry;
            if (pass == 0 && entry->fate == WALK_READY) {
                corpus->n_ready++;
                corpus->ready_bytes += entry->bytes;
            }
        }
        if (pass == 0)
            corpus->n_documents = n;
    }
    free(walk->entries);
    walk->entries = sorted;
    corpus->documents = sorted;
    corpus->left_out = sorted + corpus->n_documents;
    corpus->n_left_out = walk->count - corpus->n_documents;
    return 0;
}

/* Says what was looked for, and where something was found but nothing of use, what became of the first. */
static void refuse_empty(const struct corpus *corpus, const char *const *paths, int n, struct error *err)
{
    const struct walk *walk = corpus->walk;
    char others[32] = "", found[300] = "";
    if (n > 1)
        snprintf(others, sizeof others, " and %d more", n - 1);
    if (walk->count > 0)
        snprintf(found, sizeof found, ": %lld found, none to be read (%.100s: %.100s)", (long long)walk->count,
                 walk->entries[0].id, walk->entries[0].reason);
    error_set(err, ERROR_INPUT, "no documents in %.150s%s%s", n > 0 ? paths[0] : "no paths", others, found);
}

void corpus_log(const struct corpus *corpus)
{
    log_info("corpus: %lld documents to read (%lld bytes), %lld that cannot be read, %lld left out",
             (long long)corpus->n_ready, (long long)corpus->ready_bytes,
             (long long)(corpus->n_documents - corpus->n_ready), (long long)corpus->n_left_out);
    for (int64_t i = 0; i < corpus->walk->count; i++) {
        const struct walk_entry *entry = &corpus->walk->entries[i];
        if (entry->fate == WALK_LEFT_OUT)
            log_debug("left out: %s: %s", entry->id, entry->reason);
        else if (entry->fate != WALK_READY)
            log_warn("%s: %s", entry->id, entry->reason);
    }
}

struct corpus *corpus_open(const char *const *paths, int n, const struct corpus_options *options, struct error *err)
{
    const struct walk_options rules = {options->include, options->exclude, options->output};
    struct corpus *corpus = calloc(1, sizeof *corpus);
    if (!corpus) {
        error_errno(err, "the corpus");
        return NULL;
    }
    corpus->walk = walk_paths(paths, n, &rules, err);
    if (!corpus->walk || separate(corpus, err) < 0)
        goto fail;
    if (corpus->n_ready == 0) {
        refuse_empty(corpus, paths, n, err);
        goto fail;
    }
    return corpus;
fail:
    corpus_free(corpus);
    return NULL;
}

/* The ledger of a file that is not opened. */
static int skip_all(const struct walk_entry *entry, struct document_text *out, struct error *err)
{
    out->skipped = entry->reason;
    out->source_bytes = entry->bytes;
    if (entry->bytes == 0)
        return 0;
    out->spans = malloc(sizeof *out->spans);
    if (!out->spans)
        return error_errno(err, "the ledger of %s", entry->path);
    out->spans[0] = (struct document_span){0, entry->bytes, 0, 0, DOCUMENT_SKIPPED, entry->reason};
    out->n_spans = 1;
    return 0;
}

int corpus_read(const struct corpus *corpus, int64_t i, struct document_text *out, struct error *err)
{
    const struct walk_entry *entry = &corpus->documents[i];
    if (entry->fate == WALK_READY)
        return document_read(entry->path, out, err);
    *out = (struct document_text){.text = "", .encoding = ENCODING_UNKNOWN};
    if (entry->fate == WALK_SKIPPED)
        return skip_all(entry, out, err);
    return error_set(err, ERROR_IO, "%s: %s", entry->path, entry->reason);
}

void corpus_free(struct corpus *corpus)
{
    if (!corpus)
        return;
    walk_free(corpus->walk);
    free(corpus);
}
