/* What a document format offers to document.c: the inside of the seam io/document.h. */
#ifndef LONGHAUL_IO_DOCUMENT_FORMAT_H
#define LONGHAUL_IO_DOCUMENT_FORMAT_H

#include "io/document.h"

/* A file in memory, borrowed from the document. */
struct document_source {
    const char *path; /* for messages */
    const char *bytes;
    size_t length;
};

/* A piece of text and where it stood. */
struct document_piece {
    const char *text; /* UTF-8 [length]; borrowed until the next one */
    size_t length;
    int64_t first_byte, end_byte; /* of the file */
    enum document_use use;
    const char *reason; /* "" where used; lives for ever */
};

struct document_format {
    /* A reader of the source, or NULL on failure; *encoding = that of the source. */
    void *(*open)(const struct document_source *source, enum encoding *encoding, struct error *err);
    /* 1 and the next piece, which may point into the source; 0 at the end, -1 on failure. */
    int (*next)(void *reader, struct document_piece *piece, struct error *err);
    void (*close)(void *reader);
};

/* Plain text, Markdown, source code: anything that is text as it stands. */
extern const struct document_format document_format_text;

#endif
