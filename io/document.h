/* Documents in: a file as text, with a ledger of what became of its bytes.
 *
 * The ledger is a list of spans: in order, without gap or overlap, from the first byte of the file to its last.
 * Every byte is used (it is in the text), skipped (it says nothing in its format, such as a byte order mark) or
 * dropped (it could not be read; the text then holds U+FFFD there), the last two with a reason. Text is UTF-8. A
 * format is one file: see document_format.h.
 */
#ifndef LONGHAUL_IO_DOCUMENT_H
#define LONGHAUL_IO_DOCUMENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "io/digest.h"
#include "io/encoding.h"

enum document_use { DOCUMENT_USED, DOCUMENT_SKIPPED, DOCUMENT_DROPPED };

/* "used", "skipped", "dropped". */
const char *document_use_name(enum document_use use);

/* One line of the ledger: bytes of the file and the bytes of the text that came of them. */
struct document_span {
    int64_t first_byte, end_byte; /* of the file */
    int64_t first_text, end_text; /* of the text; equal where nothing came of them */
    enum document_use use;
    const char *reason; /* "" where used; lives for ever */
};

/* A whole document. */
struct document_text {
    const char *text; /* UTF-8 [length], may hold NULs, not terminated */
    size_t length;
    int64_t chars;                 /* code points of the text */
    int64_t source_bytes;          /* of the file */
    char sha256[DIGEST_HEX_BYTES]; /* of the file, hex */
    enum encoding encoding;        /* of the file */
    const char *skipped;           /* NULL, or why there is no text: "empty", "binary" */
    int64_t n_spans;
    struct document_span *spans; /* the ledger */
    void *owned;                 /* what the text lies in */
};

/* Read the document at `path`. A file that is to be skipped is no failure: its text is empty, `skipped` says why,
 * and its ledger says the same of all its bytes. Free with document_text_free also after a failure.
 * Errors: ERROR_IO, ERROR_RESOURCE, and ERROR_INPUT for something that is not a regular file and for text in an
 * encoding that is not known. */
int document_read(const char *path, struct document_text *out, struct error *err);

void document_text_free(struct document_text *text);

/* Free the text, which is empty then; all else that is known of the document stays. */
void document_text_release(struct document_text *text);

/* For those who cannot do without the file's text: ERROR_INPUT with the reason where it has bytes and was skipped.
 */
int document_require_text(const struct document_text *text, const char *path, struct error *err);

/* The extension of a name ("pdf") when it is one of a format that cannot be read here, else NULL. Only the end of
 * the name is looked at; lives for ever. */
const char *document_unsupported(const char *path);

#endif
