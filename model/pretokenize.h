/* Pre-tokenizers: how text falls into pieces before byte-pair encoding, which never merges across them.
 *
 * A `struct pretokenizer` is constant once created and shared by threads; each thread brings its own
 * `struct pretokenize_work`. Patterns are matched by PCRE2, compiled to machine code where it can.
 */
#ifndef LONGHAUL_MODEL_PRETOKENIZE_H
#define LONGHAUL_MODEL_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/text.h"

/* What a name in tokenizer.ggml.pre stands for. */
struct pretokenizer_rule {
    const char *name;
    const char *pattern;
    bool nfc;          /* text is brought to Unicode's normal form C first */
    bool whole_pieces; /* a piece that is in the vocabulary is not taken apart */
    bool add_bos;      /* where the file does not say */
};

struct pretokenizer;
struct pretokenize_work;

/* By name; ERROR_INPUT for an unknown one, with the list of the known. */
struct pretokenizer *pretokenizer_create(struct text name, struct error *err);
void pretokenizer_free(struct pretokenizer *pretokenizer);
const struct pretokenizer_rule *pretokenizer_rule(const struct pretokenizer *pretokenizer);

struct pretokenize_work *pretokenize_work_create(const struct pretokenizer *pretokenizer, struct error *err);
void pretokenize_work_free(struct pretokenize_work *work);

/* *end = where the piece that starts at `start` ends; start < *end <= text.length, so that pieces follow each
 * other without a gap. The text is valid UTF-8, start < text.length. */
int pretokenize_next(struct pretokenize_work *work, struct text text, size_t start, size_t *end, struct error *err);

#endif
