/* Text as it stands: plain text, Markdown, source code. The bytes are the text, once their encoding is known. */
#include <stdlib.h>

#include "io/document_format.h"

struct text_reader {
    struct encoding_reader *encoding;
    size_t mark; /* length of the byte order mark */
    bool begun;
};

static void text_close(void *state)
{
    struct text_reader *reader = state;
    if (!reader)
        return;
    encoding_reader_close(reader->encoding);
    free(reader);
}

static void *text_open(const struct document_source *source, enum encoding *encoding, struct error *err)
{
    struct text_reader *reader = calloc(1, sizeof *reader);
    if (!reader) {
        error_errno(err, "reading %s", source->path);
        return NULL;
    }
    *encoding = encoding_detect(source->bytes, source->length, &reader->mark);
    if (*encoding == ENCODING_UNKNOWN) {
        error_set(err, ERROR_INPUT, "%s: its encoding is none of UTF-8, UTF-16, UTF-32, Latin-1, Windows-1252",
                  source->path);
        text_close(reader);
        return NULL;
    }
    reader->encoding =
        encoding_reader_open(*encoding, source->bytes + reader->mark, source->length - reader->mark, err);
    if (!reader->encoding) {
        error_wrap(err, "%s", source->path);
        text_close(reader);
        return NULL;
    }
    return reader;
}

static int text_next(void *state, struct document_piece *piece, struct error *err)
{
    struct text_reader *reader = state;
    struct encoding_piece from;
    if (!reader->begun && reader->mark > 0) {
        reader->begun = true;
        *piece = (struct document_piece){"", 0, 0, (int64_t)reader->mark, DOCUMENT_SKIPPED, "byte order mark"};
        return 1;
    }
    int rc = encoding_reader_next(reader->encoding, &from, err);
    if (rc != 1)
        return rc;
    *piece = (struct document_piece){from.text,
                                     from.length,
                                     (int64_t)(reader->mark + from.first_byte),
                                     (int64_t)(reader->mark + from.end_byte),
                                     from.broken ? DOCUMENT_DROPPED : DOCUMENT_USED,
                                     from.broken ? "not valid in the encoding of the file" : ""};
    return 1;
}

const struct document_format document_format_text = {text_open, text_next, text_close};
