#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "base/utf8.h"
#include "model/bpe.h"
#include "model/nfc.h"
#include "model/pretokenize.h"
#include "model/spm.h"
#include "model/vocab.h"

/* Names under which models end a turn or a text, beside what the file's keys say. */
static const char *const END_NAMES[] = {
    "<|im_end|>",    "<|eot_id|>",    "<|eom_id|>", "<|end_of_text|>",
    "<|endoftext|>", "<end_of_turn>", "<|end|>",    "</s>",
};
enum { N_END_NAMES = sizeof END_NAMES / sizeof END_NAMES[0], MAX_ENDS = N_END_NAMES + 2 };

struct tokenizer {
    struct vocab *vocab;
    struct pretokenizer *pretokenizer; /* this and bpe, or spm: the other is NULL */
    struct bpe *bpe;
    struct spm *spm;
    int32_t bos; /* -1: none */
    bool add_bos;
    int32_t ends[MAX_ENDS];
    int n_ends;
    uint64_t hash;
    char *chat_template; /* NULL: none */
    size_t chat_template_length;
};

/* What one call of tokenizer_encode works with. */
struct encoding {
    const struct tokenizer *tokenizer;
    struct bpe_work *bpe;
    struct pretokenize_work *pretokenize;
    struct token_list *out;
};

/* ---- creation ---- */

/* *spelling = how the pieces of this kind of tokenizer are spelled, which tells the kinds apart. */
static int read_kind(const struct bundle *bundle, enum vocab_spelling *spelling, struct error *err)
{
    struct text kind;
    if (bundle_string(bundle, "tokenizer.ggml.model", &kind, err) < 0)
        return -1;
    if (!kind.bytes)
        return error_set(err, ERROR_INPUT, "%s: has no tokenizer (no tokenizer.ggml.model)", bundle->path);
    *spelling = text_equals(kind, "llama") ? SPELLING_SENTENCEPIECE : SPELLING_BYTE_LEVEL;
    if (*spelling == SPELLING_BYTE_LEVEL && !text_equals(kind, "gpt2"))
        return error_set(err, ERROR_INPUT,
                         "%s: the tokenizer is of kind '%.*s'; known are gpt2 (byte-level BPE) and llama "
                         "(SentencePiece)",
                         bundle->path, (int)(kind.length < 64 ? kind.length : 64), kind.bytes);
    return 0;
}

static struct pretokenizer *create_pretokenizer(const struct bundle *bundle, struct error *err)
{
    struct text name;
    if (bundle_string(bundle, "tokenizer.ggml.pre", &name, err) < 0)
        return NULL;
    struct pretokenizer *pretokenizer = pretokenizer_create(name, err);
    if (!pretokenizer)
        error_wrap(err, "%s", bundle->path);
    return pretokenizer;
}

/* *out = the id under `key`, -1 without the key. */
static int read_id(const struct tokenizer *tokenizer, const struct bundle *bundle, const char *key, int32_t *out,
                   struct error *err)
{
    int64_t id;
    if (bundle_int(bundle, key, -1, &id, err) < 0)
        return -1;
    if (bundle_value(bundle, key) && (id < 0 || id >= vocab_size(tokenizer->vocab)))
        return error_set(err, ERROR_INPUT, "%s: %s is %lld, the vocabulary has %lld tokens", bundle->path, key,
                         (long long)id, (long long)vocab_size(tokenizer->vocab));
    *out = (int32_t)id;
    return 0;
}

/* "</s>" as a piece of text is HTML's for struck out, and ends nothing. */
static int32_t find_end(const struct tokenizer *tokenizer, const char *name)
{
    const int32_t id = tokenizer_special(tokenizer, name);
    const bool is_text = id >= 0 && vocab_kind(tokenizer->vocab, id) == TOKEN_USER;
    return is_text && strcmp(name, "</s>") == 0 ? -1 : id;
}

static void add_end(struct tokenizer *tokenizer, int32_t id)
{
    if (id >= 0 && !tokenizer_is_end(tokenizer, id))
        tokenizer->ends[tokenizer->n_ends++] = id;
}

/* Whether BOS comes first where the file does not say. */
static bool default_add_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->spm || pretokenizer_rule(tokenizer->pretokenizer)->add_bos;
}

static int read_specials(struct tokenizer *tokenizer, const struct bundle *bundle, struct error *err)
{
    int64_t add_bos;
    int32_t eos, eot; /* of the text, of a turn */
    if (read_id(tokenizer, bundle, "tokenizer.ggml.bos_token_id", &tokenizer->bos, err) < 0 ||
        read_id(tokenizer, bundle, "tokenizer.ggml.eos_token_id", &eos, err) < 0 ||
        read_id(tokenizer, bundle, "tokenizer.ggml.eot_token_id", &eot, err) < 0 ||
        bundle_int(bundle, "tokenizer.ggml.add_bos_token", default_add_bos(tokenizer), &add_bos, err) < 0)
        return -1;
    tokenizer->add_bos = add_bos != 0 && tokenizer->bos >= 0;
    add_end(tokenizer, eos);
    add_end(tokenizer, eot);
    for (int i = 0; i < N_END_NAMES; i++)
        add_end(tokenizer, find_end(tokenizer, END_NAMES[i]));
    return 0;
}

static int copy_chat_template(struct tokenizer *tokenizer, const struct bundle *bundle, struct error *err)
{
    struct text template;
    if (bundle_string(bundle, "tokenizer.chat_template", &template, err) < 0)
        return -1;
    if (template.length == 0)
        return 0;
    if (!(tokenizer->chat_template = malloc(template.length)))
        return error_errno(err, "%s: copying the chat template", bundle->path);
    memcpy(tokenizer->chat_template, template.bytes, template.length);
    tokenizer->chat_template_length = template.length;
    return 0;
}

static int fill_byte_level(struct tokenizer *tokenizer, const struct bundle *bundle, struct error *err)
{
    if (!(tokenizer->pretokenizer = create_pretokenizer(bundle, err)))
        return -1;
    const struct pretokenizer_rule *rule = pretokenizer_rule(tokenizer->pretokenizer);
    tokenizer->bpe = bpe_create(bundle, tokenizer->vocab, rule->whole_pieces, err);
    if (!tokenizer->bpe)
        return -1;
    uint64_t hash = fnv_bytes(FNV_START, rule->name, strlen(rule->name));
    tokenizer->hash = bpe_hash(tokenizer->bpe, vocab_hash(tokenizer->vocab, hash));
    return 0;
}

static int fill_sentencepiece(struct tokenizer *tokenizer, const struct bundle *bundle, struct error *err)
{
    if (!(tokenizer->spm = spm_create(bundle, tokenizer->vocab, err)))
        return -1;
    tokenizer->hash = spm_hash(tokenizer->spm, vocab_hash(tokenizer->vocab, fnv_bytes(FNV_START, "spm", 3)));
    return 0;
}

static int fill(struct tokenizer *tokenizer, const struct bundle *bundle, struct error *err)
{
    enum vocab_spelling spelling;
    if (read_kind(bundle, &spelling, err) < 0 || !(tokenizer->vocab = vocab_create(bundle, spelling, err)))
        return -1;
    if (spelling == SPELLING_SENTENCEPIECE ? fill_sentencepiece(tokenizer, bundle, err) < 0
                                           : fill_byte_level(tokenizer, bundle, err) < 0)
        return -1;
    return read_specials(tokenizer, bundle, err) < 0 ? -1 : copy_chat_template(tokenizer, bundle, err);
}

struct tokenizer *tokenizer_create(const struct bundle *bundle, struct error *err)
{
    struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer) {
        error_errno(err, "making a tokenizer");
        return NULL;
    }
    if (fill(tokenizer, bundle, err) < 0) {
        tokenizer_free(tokenizer);
        return NULL;
    }
    return tokenizer;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    bpe_free(tokenizer->bpe);
    spm_free(tokenizer->spm);
    vocab_free(tokenizer->vocab);
    pretokenizer_free(tokenizer->pretokenizer);
    free(tokenizer->chat_template);
    free(tokenizer);
}

/* ---- text to ids ---- */

static int encode_pieces(const struct encoding *encoding, struct text text, struct error *err)
{
    for (size_t start = 0, end; start < text.length; start = end) {
        if (pretokenize_next(encoding->pretokenize, text, start, &end, err) < 0)
            return -1;
        struct text piece = {text.bytes + start, end - start};
        if (bpe_encode(encoding->tokenizer->bpe, encoding->bpe, piece, encoding->out, err) < 0)
            return -1;
    }
    return 0;
}

/* A stretch of valid UTF-8. */
static int encode_valid(const struct encoding *encoding, struct text text, struct error *err)
{
    if (!pretokenizer_rule(encoding->tokenizer->pretokenizer)->nfc)
        return encode_pieces(encoding, text, err);
    struct token_list *out = encoding->out;
    int64_t first = out->count, base = out->text_bytes;
    struct nfc_text normal;
    if (nfc_normalize(text, &normal, err) < 0)
        return -1;
    int status = encode_pieces(encoding, normal.text, err);
    if (status == 0 && normal.n_edits > 0) {
        nfc_map_ends(&normal, base, out->ends + first, out->count - first);
        out->text_bytes = base + (int64_t)text.length;
    }
    nfc_free(&normal);
    return status;
}

static int encode_text(const struct encoding *encoding, struct text text, struct error *err)
{
    while (text.length > 0) {
        size_t valid = utf8_valid_prefix(text);
        if (encode_valid(encoding, (struct text){text.bytes, valid}, err) < 0)
            return -1;
        text = (struct text){text.bytes + valid, text.length - valid};
        if (text.length == 0)
            break;
        /* A byte that is not UTF-8 is a piece of its own: the token of that byte. */
        if (bpe_encode(encoding->tokenizer->bpe, encoding->bpe, (struct text){text.bytes, 1}, encoding->out, err) <
            0)
            return -1;
        text = (struct text){text.bytes + 1, text.length - 1};
    }
    return 0;
}

static int encode_byte_level(const struct tokenizer *tokenizer, struct text text, struct token_list *out,
                             struct error *err)
{
    struct encoding encoding = {.tokenizer = tokenizer, .out = out};
    int status = -1;
    encoding.bpe = bpe_work_create(err);
    if (encoding.bpe)
        encoding.pretokenize = pretokenize_work_create(tokenizer->pretokenizer, err);
    if (encoding.pretokenize)
        status = encode_text(&encoding, text, err);
    bpe_work_free(encoding.bpe);
    pretokenize_work_free(encoding.pretokenize);
    return status;
}

typedef int encoder(const struct tokenizer *tokenizer, struct text text, struct token_list *out, struct error *err);

static int encode_whole(const struct tokenizer *tokenizer, struct text text, struct token_list *out,
                        struct error *err)
{
    return tokenizer->spm ? spm_encode(tokenizer->spm, text, out, err)
                          : encode_byte_level(tokenizer, text, out, err);
}

static int encode_further(const struct tokenizer *tokenizer, struct text text, struct token_list *out,
                          struct error *err)
{
    return tokenizer->spm ? spm_continue(tokenizer->spm, text, out, err)
                          : encode_byte_level(tokenizer, text, out, err);
}

/* With all bytes accounted for, or `out` as it was. */
static int append_tokens(const struct tokenizer *tokenizer, encoder *encode, struct text text,
                         struct token_list *out, struct error *err)
{
    int64_t count = out->count, text_bytes = out->text_bytes, unknown_bytes = out->unknown_bytes;
    int status = encode(tokenizer, text, out, err);
    if (status < 0) {
        out->count = count;
        out->text_bytes = text_bytes;
        out->unknown_bytes = unknown_bytes;
    } else if (text.length > 0 && out->count > 0) {
        out->ends[out->count - 1] = out->text_bytes; /* what follows the last token belongs to it */
    }
    return status;
}

int tokenizer_encode(const struct tokenizer *tokenizer, struct text text, struct token_list *out, struct error *err)
{
    return append_tokens(tokenizer, encode_whole, text, out, err);
}

int tokenizer_continue(const struct tokenizer *tokenizer, struct text text, struct token_list *out,
                       struct error *err)
{
    return append_tokens(tokenizer, encode_further, text, out, err);
}

/* ---- what is known of a token ---- */

struct text tokenizer_piece(const struct tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || id >= vocab_size(tokenizer->vocab))
        return (struct text){"", 0};
    return vocab_piece(tokenizer->vocab, id);
}

struct text tokenizer_first_piece(const struct tokenizer *tokenizer, int32_t id)
{
    struct text piece = tokenizer_piece(tokenizer, id);
    if (tokenizer->spm && spm_space_prefix(tokenizer->spm) && piece.length > 0 && piece.bytes[0] == ' ')
        return (struct text){piece.bytes + 1, piece.length - 1};
    return piece;
}

int tokenizer_spell(const struct tokenizer *tokenizer, const int32_t *tokens, int64_t n, struct arena *arena,
                    struct text *out, struct error *err)
{
    size_t bytes = 1;
    for (int64_t i = 0; i < n; i++)
        bytes += tokenizer_piece(tokenizer, tokens[i]).length;
    char *at = arena_take(arena, bytes, 1, err);
    if (!at)
        return -1;
    *out = (struct text){at, 0};
    for (int64_t i = 0; i < n; i++) {
        const struct text piece =
            i == 0 ? tokenizer_first_piece(tokenizer, tokens[i]) : tokenizer_piece(tokenizer, tokens[i]);
        memcpy(at + out->length, piece.bytes, piece.length);
        out->length += piece.length;
    }
    return 0;
}

int64_t tokenizer_size(const struct tokenizer *tokenizer)
{
    return vocab_size(tokenizer->vocab);
}

int32_t tokenizer_special(const struct tokenizer *tokenizer, const char *name)
{
    return vocab_find_special(tokenizer->vocab, name);
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos;
}

bool tokenizer_add_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->add_bos;
}

bool tokenizer_is_end(const struct tokenizer *tokenizer, int32_t id)
{
    for (int i = 0; i < tokenizer->n_ends; i++)
        if (tokenizer->ends[i] == id)
            return true;
    return false;
}

struct text tokenizer_chat_template(const struct tokenizer *tokenizer)
{
    return (struct text){tokenizer->chat_template, tokenizer->chat_template_length};
}

uint64_t tokenizer_hash(const struct tokenizer *tokenizer)
{
    return tokenizer->hash;
}
