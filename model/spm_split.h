/* Where text may be cut before SentencePiece's merges without changing what they give.
 *
 * Two kinds of places: around a user-defined piece, which is one token wherever it stands (the longest at each
 * place, from left to right) and is never merged; and between two characters that are neighbours in no piece of the
 * vocabulary, such as the last letter of a word and the space behind it, where nothing can join them. The second
 * is no rule of SentencePiece, which merges over all of a text; it follows from its vocabulary, and makes a text
 * of any length a row of short stretches, the same ones again and again.
 *
 * Constant once created: any number of threads may read it.
 */
#ifndef LONGHAUL_MODEL_SPM_SPLIT_H
#define LONGHAUL_MODEL_SPM_SPLIT_H

#include "base/error.h"
#include "base/text.h"
#include "model/vocab.h"

struct spm_split;

/* Borrows the vocabulary. ERROR_RESOURCE; ERROR_INPUT for a normal piece that is not UTF-8. */
struct spm_split *spm_split_create(const struct vocab *vocab, struct error *err);
void spm_split_free(struct spm_split *split);

struct spm_stretch {
    size_t end;   /* where it ends in the text */
    int32_t user; /* the user-defined token that it is, or -1 */
};

/* The stretch that starts at `start`, not empty. The text is valid UTF-8, start < text.length. */
struct spm_stretch spm_split_next(const struct spm_split *split, struct text text, size_t start);

#endif
