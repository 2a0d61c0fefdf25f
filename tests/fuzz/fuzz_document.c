/* Any bytes as a document: they are read, or refused with a reason, and the ledger accounts for each of them.
 * Built and run by test_fuzz_document.sh with libFuzzer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/utf8.h"
#include "io/document.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static void check(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

static void check_text(const struct document_text *text, size_t length)
{
    int64_t byte = 0, at = 0;
    for (int64_t i = 0; i < text->n_spans; i++) {
        const struct document_span *span = &text->spans[i];
        check(span->first_byte == byte && span->end_byte > byte, "spans follow one another in the file");
        check(span->first_text == at && span->end_text >= at, "spans follow one another in the text");
        check((span->use == DOCUMENT_USED) == (span->reason[0] == '\0'), "what is not used has a reason");
        byte = span->end_byte;
        at = span->end_text;
    }
    check(text->source_bytes == (int64_t)length && byte == text->source_bytes, "the ledger covers the file");
    check(at == (int64_t)text->length, "the ledger covers the text");
    check(utf8_valid_prefix((struct text){text->text, text->length}) == text->length, "the text is UTF-8");
    check(!text->skipped || text->length == 0, "what is skipped has no text");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char path[64];
    struct error err = {ERROR_NONE, ""};
    struct document_text text;
    int fd = memfd_create("document", 0);
    check(fd >= 0 && write(fd, bytes, length) == (ssize_t)length, "a file in memory can be made");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (document_read(path, &text, &err) == 0)
        check_text(&text, length);
    else
        check(err.code == ERROR_INPUT && strstr(err.text, path), "a refusal is an input error that names the file");
    document_text_free(&text);
    close(fd);
    return 0;
}
