/* Results on disk: the writer that rank 0 has, and the reader that `export` has (docs/formats.md: the layout).
 *
 * Writing: results_open (takes the directory's lock, reads what is there), results_find to skip what is done,
 * then any number of results_add, each batch followed by results_publish, and results_close. Published documents
 * are durable; documents added and not published are lost by a kill, and done again by the next run.
 * Reading: results_load, results_next until it gives NULL, results_unload. It needs no lock and may be done while
 * another process writes: it sees the last index published.
 *
 * OUT/results.h5 is the index, replaced at each publication; OUT/parts/part-NNNNNN.h5 hold the documents, one
 * immutable file for each batch. Every file is built and parsed in memory, so HDF5 never meets a full disk, and no
 * byte reaches HDF5's parser before its SHA-256 has been compared.
 *
 * Text is kept as UTF-8: what is not (a token's stray byte, a NUL) shows as U+FFFD to readers of the file and comes
 * back from the reader here as the very bytes that were added. All calls from one thread (HDF5 is not
 * thread-safe). Strings are NUL-terminated unless they are `struct text`; a string that may be absent is "" or
 * NULL when written, "" when read.
 */
#ifndef LONGHAUL_IO_RESULTS_H
#define LONGHAUL_IO_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"
#include "io/document.h"

enum result_task { RESULT_SUMMARIZE, RESULT_SCORE };

enum result_status {
    RESULT_PENDING, /* known, nothing done                                */
    RESULT_RUNNING, /* begun, nothing to show                             */
    RESULT_OK,      /* done                                               */
    RESULT_PARTIAL, /* done, but some of it was dropped: `reason` says so */
    RESULT_FAILED,  /* not done: `reason` says why                        */
    RESULT_SKIPPED  /* not to be done: `reason` says why                  */
};

enum result_node_kind { RESULT_MAP, RESULT_REDUCE, RESULT_REFINE, RESULT_FINAL };

/* "summarize", "ok", "map" and the like. */
const char *result_task_name(enum result_task task);
const char *result_status_name(enum result_status status);
const char *result_node_kind_name(enum result_node_kind kind);

/* What made the results of one run; every document says which run it came from. */
struct results_run {
    enum result_task task;
    const char *version; /* of longhaul */
    const char *model_path;
    const char *model_sha256;
    const char *tokenizer_hash; /* two tokenizers that give the same ids share it */
    const char *architecture;
    const char *options;     /* all options in effect: a JSON object */
    const char *config_hash; /* of what decides the answers: runs that differ must not share a directory */
    const char *hosts;       /* separated by commas */
    const char *dtype;
    const char *started; /* UTC, ISO 8601 */
    int64_t ranks;
    int64_t ring_size;
};

/* A chunk: tokens [first_token, end_token) of the document, from bytes [first_byte, end_byte) of its text. */
struct result_chunk {
    int64_t index;
    int64_t first_token, end_token;
    int64_t first_byte, end_byte;
    int64_t overlap; /* leading tokens that the chunk before it has too */
};

/* One generation: an intermediate summary, or the last one. */
struct result_node {
    int64_t id;
    int64_t parent; /* the node that took this text up, or -1 */
    int64_t level;  /* 0 nearest to the source */
    enum result_node_kind kind;
    int64_t chunk; /* the chunk it was made from, or -1 */
    int64_t prompt_tokens;
    int64_t n_tokens;      /* generated */
    const int32_t *tokens; /* [n_tokens] */
    struct text text;
    const char *finish_reason;
};

struct result_timings {
    double prefill_seconds, decode_seconds, wall_seconds;
    int64_t tokens_prefilled, tokens_generated;
};

/* Predictions of the tokens at positions [first_position, end_position). */
struct result_bucket {
    int64_t first_position, end_position;
    int64_t count;
    double nll_sum, perplexity; /* as in struct result_score */
};

/* What `score` found, count entries each: the token at `position`, its natural log probability given all before it,
 * and the token the model would have chosen. */
struct result_score {
    int64_t count;
    const int64_t *position;
    const int32_t *token;
    const float *logprob;
    const int32_t *top1;
    double nll_sum;    /* of -logprob */
    double perplexity; /* exp(nll_sum / count) */
    int64_t n_buckets;
    const struct result_bucket *buckets; /* by position, covering all predictions */
};

/* What it costs to read the document under `policy` instead of `reference` (pipeline/receipt.h): tokens 0 where
 * there is none; bytes 0 where nothing had left the memory after `tokens` tokens, and so nothing was measured: all
 * losses and ratios are NaN then. Losses are log p_reference - log p in nats; positions count as those of a score.
 */
struct result_receipt {
    const char *policy, *reference;
    int64_t tokens;      /* read by both; of several chunks, the longest */
    int64_t predictions; /* whose loss was measured */
    double mean_loss, worst_loss;
    int64_t worst_loss_position;
    double perplexity, reference_perplexity; /* over the same predictions */
    int64_t probes;                          /* positions where whole distributions were compared */
    double mean_kl, worst_kl;                /* KL(reference || policy), nats */
    int64_t worst_kl_position;
    int64_t bytes, reference_bytes; /* of keys and values held for `tokens` tokens, all ranks together */
    double ratio;                   /* reference_bytes / bytes */
    const float *logprob;           /* score: [score.count] under the reference; else NULL */
    int64_t n_buckets;              /* the same as the score's, under the reference */
    const struct result_bucket *buckets;
};

/* Everything about one document. Borrowed from the caller while it is written, from the reader when read. */
struct result_document {
    const char *id;     /* unique in the directory; any bytes */
    const char *path;   /* where it was read from */
    const char *sha256; /* of the file, hexadecimal */
    int64_t order;      /* its place in the corpus; the reader goes by (order, id) */
    int64_t bytes, chars;
    int64_t tokens_in, tokens_used, tokens_dropped;
    int64_t tokens_forgotten; /* of those read, out of reach of every layer once their chunk had been read */
    enum result_status status;
    const char *reason;
    int64_t attempts;
    const char *strategy;
    struct text text; /* the answer, or nothing */
    const char *finish_reason;
    int64_t n_tokens;
    const int32_t *tokens; /* [n_tokens] of the answer */
    int64_t n_chunks;
    const struct result_chunk *chunks;
    int64_t n_nodes;
    const struct result_node *nodes;
    int64_t n_spans;
    const struct document_span *spans; /* the ingest ledger */
    struct result_timings timings;
    struct result_score score; /* count 0: none */
    struct result_receipt receipt;
    int64_t number; /* read only: the name of its group */
    int64_t run;    /* read only: counts from 1 */
};

/* ---- writing ---- */

struct results;

/* Make the directory, or go on with the one there is. Removes what a killed run left unfinished: temporaries, and a
 * part published without its index. Every listed part is checked. `run` is borrowed until results_close.
 * Errors: ERROR_USAGE when another run holds the lock or the directory holds results of another task; ERROR_INPUT
 * when a file is not what the index says, or a part is there that no kill explains (an index lost, or set back by
 * more than a part); ERROR_IO, ERROR_RESOURCE. */
struct results *results_open(const char *directory, const struct results_run *run, struct error *err);

/* The last run there, NULL in a new directory; lives until a document is added. The caller compares its
 * configuration with its own, and keeps to its arithmetic. */
const struct results_run *results_before(const struct results *results);

/* Documents whose part has been deleted by somebody: they count as never done. */
int64_t results_lost(const struct results *results);

/* What is known of a published document. */
struct results_entry {
    const char *sha256;
    enum result_status status;
    int64_t attempts;
};

/* false: no such document. The strings live until the next publication. */
bool results_find(const struct results *results, const char *id, struct results_entry *out);

/* Where a document that was published stands in the present corpus, for the index that is published next; nothing
 * for another one. */
void results_place(struct results *results, const char *id, int64_t order);

/* Put a document into the next part. A document that is published already is replaced by this one. ERROR_INTERNAL
 * when the id was added since the last publication. After any failure the batch is as it was before the call. */
int results_add(struct results *results, const struct result_document *document, struct error *err);

/* Make all that was added durable: one part, then the index that lists it. Nothing added: nothing done. On failure
 * what was published before is intact, the batch is still there and publishing can be tried again. */
int results_publish(struct results *results, struct error *err);

/* Gives up what was not published, and the lock. NULL is fine. */
void results_close(struct results *results);

/* ---- reading ---- */

/* Whether a file at `path`, which need not be there, is the index of the directory or lies among its parts. */
bool results_own(const char *directory, const char *path);

struct results_reader;

/* ERROR_INPUT when it is no results directory or a file of it is damaged. */
struct results_reader *results_load(const char *directory, struct error *err);
int64_t results_count(const struct results_reader *reader);

/* *out = the next document by (order, id), NULL after the last; it lives until the next call. */
int results_next(struct results_reader *reader, const struct result_document **out, struct error *err);

/* The run numbered `number` (1 ..), or NULL. */
const struct results_run *results_run_of(const struct results_reader *reader, int64_t number);
enum result_task results_task(const struct results_reader *reader);
void results_unload(struct results_reader *reader); /* NULL is fine */

#endif
