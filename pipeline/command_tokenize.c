#include <stdio.h>

#include "io/document.h"
#include "io/gguf.h"
#include "model/tokenizer.h"
#include "pipeline/commands.h"

static int print_tokens(const struct tokenizer *tokenizer, const struct document_text *text, struct error *err)
{
    struct token_list tokens = {0};
    int status = tokenizer_encode(tokenizer, (struct text){text->text, text->length}, &tokens, err);
    for (int64_t i = 0; status == 0 && i < tokens.count; i++)
        if (printf("%d\n", tokens.ids[i]) < 0)
            status = error_errno(err, "writing the tokens");
    token_list_free(&tokens);
    if (status == 0 && fflush(stdout) != 0)
        status = error_errno(err, "writing the tokens");
    return status;
}

int command_tokenize(const struct options *options, struct error *err)
{
    struct document_text text = {0};
    struct tokenizer *tokenizer = NULL;
    int status = -1;
    struct gguf *gguf = gguf_open(options->model, err);
    if (gguf && (tokenizer = tokenizer_create(gguf_bundle(gguf), err)) != NULL &&
        document_read(options->operands[0], &text, err) == 0 &&
        document_require_text(&text, options->operands[0], err) == 0)
        status = print_tokens(tokenizer, &text, err);
    document_text_free(&text);
    tokenizer_free(tokenizer);
    gguf_free(gguf);
    return status;
}
