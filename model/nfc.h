/* Unicode normalisation form C, with the way back to the bytes before it.
 *
 * Some tokenizers (Qwen 2) were trained on normalised text. nfc_normalize, then nfc_map_ends for places in it,
 * in rising order; nfc_free. Nearly all text is in the form already: then nothing is copied.
 */
#ifndef LONGHAUL_MODEL_NFC_H
#define LONGHAUL_MODEL_NFC_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"

/* The bytes source_start .. source_end became normal_start .. normal_end. */
struct nfc_edit {
    int64_t source_start, source_end;
    int64_t normal_start, normal_end;
};

struct nfc_text {
    struct text text; /* the normalised text; borrowed from the source where nothing changed */
    char *owned;      /* NULL where nothing changed */
    struct nfc_edit *edits;
    int64_t n_edits, edit_capacity;
};

/* *out = the normal form of valid UTF-8. O(n log n) for any input. ERROR_RESOURCE; *out is then empty. */
int nfc_normalize(struct text text, struct nfc_text *out, struct error *err);
void nfc_free(struct nfc_text *text);

/* Turn places in the normal text into places in the source: ends [count], rising, each counted from `base`. A place
 * inside an edit becomes the start of that edit. */
void nfc_map_ends(const struct nfc_text *text, int64_t base, int64_t *ends, int64_t count);

#endif
