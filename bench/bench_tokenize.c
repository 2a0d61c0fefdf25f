/* How fast a model's tokenizer is, and what it makes of a file.
 *
 *     bench_tokenize FILE -m MODEL.gguf
 *
 * prints one token id per line on stdout and the rate on stderr. tests/reference/tokens.py compares the ids with
 * those of the original tokenizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "io/gguf.h"
#include "model/tokenizer.h"

/* The whole file; the caller frees the bytes. */
static int read_file(const char *path, struct text *out, struct error *err)
{
    size_t capacity = 1 << 20, length = 0, n;
    char *bytes = malloc(capacity);
    FILE *file = fopen(path, "rb");
    while (file && bytes && (n = fread(bytes + length, 1, capacity - length, file)) > 0) {
        length += n;
        if (length == capacity) {
            char *more = realloc(bytes, capacity *= 2);
            if (!more)
                free(bytes);
            bytes = more;
        }
    }
    int status = file && bytes && !ferror(file) ? 0 : error_errno(err, "%s: reading", path);
    if (file)
        fclose(file);
    if (status < 0)
        free(bytes);
    else
        *out = (struct text){bytes, length};
    return status;
}

static int tokenize(const char *path, const struct bundle *bundle, struct error *err)
{
    struct text text;
    struct token_list tokens = {0};
    if (read_file(path, &text, err) < 0)
        return -1;
    double start = clock_seconds();
    struct tokenizer *tokenizer = tokenizer_create(bundle, err);
    double made = clock_seconds();
    int status = tokenizer ? tokenizer_encode(tokenizer, text, &tokens, err) : -1;
    double seconds = clock_seconds() - made;
    if (status == 0)
        fprintf(stderr, "tokenizer made in %.3f s; %zu bytes, %lld tokens in %.3f s: %.1f MB/s\n", made - start,
                text.length, (long long)tokens.count, seconds, (double)text.length / seconds / 1e6);
    for (int64_t i = 0; status == 0 && i < tokens.count; i++)
        printf("%d\n", tokens.ids[i]);
    token_list_free(&tokens);
    tokenizer_free(tokenizer);
    free((void *)text.bytes);
    return status;
}

int main(int argc, char **argv)
{
    struct error err;
    if (argc != 4 || strcmp(argv[2], "-m") != 0) {
        fprintf(stderr, "usage: bench_tokenize FILE -m MODEL.gguf\n");
        return ERROR_USAGE;
    }
    struct gguf *gguf = gguf_open(argv[3], &err);
    int status = gguf ? tokenize(argv[1], gguf_bundle(gguf), &err) : -1;
    if (status < 0)
        fprintf(stderr, "bench_tokenize: %s\n", err.text);
    gguf_free(gguf);
    return status < 0 ? (int)err.code : 0;
}
