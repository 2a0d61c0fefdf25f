/* The corpus: the documents of a run, in an order that is the same on every rank and every run.
 *
 * corpus_open lists them without opening any; corpus_read reads one; corpus_free. A document that cannot be read
 * is the failure of that document, never of the corpus. The documents are those to be read and those that are
 * known by name or size to be unreadable; these stay in the list, so that the results have a line for each.
 */
#ifndef LONGHAUL_PIPELINE_CORPUS_H
#define LONGHAUL_PIPELINE_CORPUS_H

#include <stdint.h>

#include "base/error.h"
#include "io/document.h"
#include "io/walk.h"

/* As those of a walk (io/walk.h); borrowed while corpus_open runs. */
struct corpus_options {
    struct walk_globs include, exclude;
    const char *output;
};

struct corpus {
    int64_t n_documents;
    const struct walk_entry *documents; /* WALK_READY, WALK_SKIPPED or WALK_FAILED; see io/walk.h */
    int64_t n_ready;                    /* those that are WALK_READY */
    int64_t ready_bytes;                /* of their files, when they were listed */
    int64_t n_left_out;
    const struct walk_entry *left_out; /* WALK_LEFT_OUT: not asked for */
    struct walk *walk;                 /* what the above lies in */
};

/* The corpus of paths [n]. NULL on failure: ERROR_IO for a path that does not exist, ERROR_INPUT when there is
 * nothing to read at all; ERROR_RESOURCE. */
struct corpus *corpus_open(const char *const *paths, int n, const struct corpus_options *options,
                           struct error *err);

/* Read document `i`: text, digest and ledger (io/document.h). A skipped one has no text but out->skipped, which
 * may be borrowed from the corpus. -1 says why the document failed. Free with document_text_free in any case. */
int corpus_read(const struct corpus *corpus, int64_t i, struct document_text *out, struct error *err);

/* Into the log, which wants to be open: how many documents, those that cannot be read, and what was left out. */
void corpus_log(const struct corpus *corpus);

void corpus_free(struct corpus *corpus);

#endif
