#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#include "io/gguf.h"
#include "pipeline/commands.h"

enum { LONGEST_STRING = 100 };

/* A string from the file, on one line: control characters and quotes escaped, the end of a long one left out. */
static void print_text(struct text text)
{
    putchar('"');
    for (size_t i = 0; i < text.length && i < LONGEST_STRING; i++) {
        const unsigned char c = (unsigned char)text.bytes[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (iscntrl(c))
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    if (text.length > LONGEST_STRING)
        printf("...\" (%zu bytes)", text.length);
    else
        putchar('"');
}

static void print_value(const struct value *value)
{
    printf("  %-44s ", value->key);
    switch (value->kind) {
    case VALUE_INT:
        printf("%" PRId64, value->integer);
        break;
    case VALUE_BOOL:
        fputs(value->integer ? "true" : "false", stdout);
        break;
    case VALUE_FLOAT:
        printf("%.9g", value->real);
        break;
    case VALUE_STRING:
        print_text(value->string);
        break;
    case VALUE_INTS:
    case VALUE_BOOLS:
        printf("[%" PRId64 " integers]", value->count);
        break;
    case VALUE_FLOATS:
        printf("[%" PRId64 " numbers]", value->count);
        break;
    case VALUE_STRINGS:
        printf("[%" PRId64 " strings]", value->count);
        break;
    }
    putchar('\n');
}

static void print_tensor(const struct tensor *tensor)
{
    char dims[96];
    int used = 0;
    for (int i = 0; i < tensor->n_dims; i++)
        used += snprintf(dims + used, sizeof dims - (size_t)used, "%s%" PRId64, i ? " x " : "", tensor->dims[i]);
    printf("  %-44s %-5s %-24s %zu bytes\n", tensor->name, tensor_type_name(tensor->type), dims, tensor->bytes);
}

int command_inspect(const struct options *options, struct error *err)
{
    struct gguf *gguf = gguf_open(options->operands[0], err);
    if (!gguf)
        return -1;
    const struct bundle *bundle = gguf_bundle(gguf);
    size_t bytes = 0;
    int64_t elements = 0;
    printf("%s\n\n%" PRId64 " values\n", bundle->path, bundle->n_values);
    for (int64_t i = 0; i < bundle->n_values; i++)
        print_value(&bundle->values[i]);
    printf("\n%" PRId64 " tensors\n", bundle->n_tensors);
    for (int64_t i = 0; i < bundle->n_tensors; i++) {
        print_tensor(&bundle->tensors[i]);
        bytes += bundle->tensors[i].bytes;
        elements += bundle->tensors[i].dims[0] * tensor_rows(&bundle->tensors[i]);
    }
    printf("\n%" PRId64 " weights in %zu bytes\n", elements, bytes);
    gguf_free(gguf);
    return ferror(stdout) || fflush(stdout) != 0 ? error_errno(err, "writing the listing") : 0;
}
