/* Needle tasks whose facts are all over the text: vt, cwe, fwe. */
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "pipeline/needle_draft.h"
#include "pipeline/needle_words.h"

/* ---- text that is only counted ---- */

struct writing {
    FILE *out; /* NULL: no memory */
    char *text;
    size_t length;
};

static FILE *begin_writing(struct writing *writing)
{
    return writing->out = open_memstream(&writing->text, &writing->length);
}

/* Ends the writing: the tokens of what was written, or -1. */
static int64_t count_written(struct writing *writing, const struct tokenizer *tokenizer, struct error *err)
{
    struct token_list tokens = {0};
    int status = -1;
    if (!writing->out)
        return error_set(err, ERROR_RESOURCE, "no memory for a text that is counted");
    if (fclose(writing->out) != 0)
        error_set(err, ERROR_RESOURCE, "no memory for a text that is counted");
    else
        status = tokenizer_encode(tokenizer, (struct text){writing->text, writing->length}, &tokens, err);
    const int64_t count = tokens.count;
    token_list_free(&tokens);
    free(writing->text);
    return status == 0 ? count : -1;
}

/* ---- vt: a chain of assignments among lines of noise ---- */

enum { CHAIN = 5, VARIABLE = 6, EXAMPLE_TOKENS = 500 };

struct chain {
    char names[CHAIN][VARIABLE];
    int value, letters; /* the names' length */
};

static void draw_chain(struct draft *draft, int letters, struct chain *out)
{
    out->letters = letters;
    out->value = (int)(10000 + draft_below(draft, 90000));
    for (int i = 0; i < CHAIN; i++) {
        bool taken = true;
        while (taken) {
            taken = false;
            for (int c = 0; c < letters; c++)
                out->names[i][c] = (char)('A' + draft_below(draft, 26));
            out->names[i][letters] = '\0';
            for (int j = 0; j < i; j++)
                taken = taken || strcmp(out->names[i], out->names[j]) == 0;
        }
    }
}

/* The question about a chain that stands somewhere in n lines of noise. */
static void write_chain(struct draft *draft, const struct chain *chain, int64_t n, FILE *out)
{
    int64_t places[CHAIN];
    draft_choose(draft, n, CHAIN, places);
    fputs("Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n", out);
    for (int64_t line = 0, next = 0; line < n; line++) {
        if (next < CHAIN && places[next] == line) {
            if (next == 0)
                fprintf(out, "VAR %s = %d\n", chain->names[0], chain->value);
            else
                fprintf(out, "VAR %s = VAR %s \n", chain->names[next], chain->names[next - 1]);
            next++;
        }
        fprintf(out, "%s\n", needle_noise);
    }
    fprintf(out, "Question: Find all variables that are assigned the value %d in the text above.", chain->value);
}

static void lead_chain(const struct chain *chain, char *out, size_t size)
{
    snprintf(out, size,
             " Answer: According to the chain(s) of variable assignment in the text above, %d variables are "
             "assgined " /* so */
             "the value %d, they are: ",
             CHAIN, chain->value);
}

/* A worked example of n lines, its chain of three-letter names, its answer. */
static void write_example(struct draft *draft, int64_t n, FILE *out)
{
    struct chain chain;
    char lead[NEEDLE_LEAD_BYTES];
    draw_chain(draft, 3, &chain);
    write_chain(draft, &chain, n, out);
    lead_chain(&chain, lead, sizeof lead);
    fputs(lead, out);
    for (int i = 0; i < CHAIN; i++)
        fprintf(out, " %s", chain.names[i]);
    fputs("\n\n", out);
}

/* Tokens of an example of n lines, or -1. */
static int64_t example_tokens(const struct draft *draft, int64_t n, struct error *err)
{
    struct draft trying = *draft;
    struct writing writing = {0};
    if (begin_writing(&writing))
        write_example(&trying, n, writing.out);
    return count_written(&writing, draft->material->tokenizer, err);
}

int draft_vt(struct draft *draft, struct error *err)
{
    struct chain chain;
    int64_t lines = CHAIN, tokens = 0;
    while (tokens <= EXAMPLE_TOKENS)
        if ((tokens = example_tokens(draft, ++lines, err)) < 0)
            return -1;
    write_example(draft, lines - 1, draft->prompt);
    draw_chain(draft, VARIABLE - 1, &chain);
    write_chain(draft, &chain, draft->size, draft->prompt);
    lead_chain(&chain, draft->lead, sizeof draft->lead);
    for (int i = 0; i < CHAIN; i++)
        draft_expect(draft, chain.names[i]);
    return 0;
}

/* ---- cwe: words counted in a list ---- */

enum { COMMON = 10, LONG = 4096 };
enum { SINGLE_WORDS = NEEDLE_ADJECTIVES + NEEDLE_NOUNS, PAIRS = NEEDLE_ADJECTIVES * NEEDLE_NOUNS };

/* How often words stand in the list, and how many different ones the example has. */
struct frequencies {
    int common, uncommon;
    int example_words, example_common, example_uncommon;
};

static const struct frequencies brief = {6, 1, 20, 3, 1}, full = {30, 3, 40, 10, 3};

/* Whether single words are too few for a list of that length, which then is all of pairs. */
static bool takes_pairs(const struct needle_material *material, int64_t length)
{
    return length - needle_task_max_new(NEEDLE_CWE) > material->single_tokens;
}

int64_t draft_cwe_words(const struct needle_material *material, int64_t length)
{
    return takes_pairs(material, length) ? PAIRS : SINGLE_WORDS;
}

static void spell_word(int32_t word, bool pairs, char out[NEEDLE_EXPECTED_BYTES])
{
    const char *first = pairs                      ? needle_adjectives[word / NEEDLE_NOUNS]
                        : word < NEEDLE_ADJECTIVES ? needle_adjectives[word]
                                                   : needle_nouns[word - NEEDLE_ADJECTIVES];
    snprintf(out, NEEDLE_EXPECTED_BYTES, "%s%s%s", first, pairs ? "-" : "",
             pairs ? needle_nouns[word % NEEDLE_NOUNS] : "");
}

static void write_item(int64_t number, int32_t word, bool pairs, FILE *out)
{
    char spelled[NEEDLE_EXPECTED_BYTES];
    spell_word(word, pairs, spelled);
    fprintf(out, "%lld. %s", (long long)number, spelled);
}

int64_t draft_cwe_single_tokens(const struct needle_material *material, struct error *err)
{
    struct writing writing = {0};
    int64_t number = 0;
    FILE *out = begin_writing(&writing);
    for (int32_t word = 0; word < SINGLE_WORDS && out; word++)
        for (int r = 0; r < (word < COMMON ? full.common : full.uncommon); r++) {
            fputs(number ? " " : "", out);
            write_item(++number, word, false, out);
        }
    return count_written(&writing, material->tokenizer, err);
}

/* A list of n different words, the first COMMON of words among them the common ones. */
static int write_list(struct draft *draft, const int32_t *words, int64_t n, const int repeats[2], struct error *err)
{
    const bool pairs = takes_pairs(draft->material, draft->cell->length);
    const int64_t total = (int64_t)COMMON * repeats[0] + (n - COMMON) * repeats[1];
    int32_t *list = malloc((size_t)total * sizeof *list);
    if (!list)
        return error_set(err, ERROR_RESOURCE, "no memory for a list of %lld words", (long long)total);
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        for (int r = 0; r < repeats[i >= COMMON]; r++)
            list[count++] = words[i];
    draft_shuffle(draft, list, count);
    fputs(
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones "
        "that appear most often.\n",
        draft->prompt);
    for (int64_t i = 0; i < count; i++) {
        fputs(i ? " " : "", draft->prompt);
        write_item(i + 1, list[i], pairs, draft->prompt);
    }
    fputs("\nQuestion: What are the 10 most common words in the above list?", draft->prompt);
    free(list);
    return 0;
}

/* words [n] = all n words there are, in a drawn order. */
static int32_t *draw_words(struct draft *draft, int64_t n, struct error *err)
{
    int32_t *words = malloc((size_t)n * sizeof *words);
    if (!words) {
        error_set(err, ERROR_RESOURCE, "no memory for %lld words", (long long)n);
        return NULL;
    }
    for (int64_t i = 0; i < n; i++)
        words[i] = (int32_t)i;
    draft_shuffle(draft, words, n);
    return words;
}

int draft_cwe(struct draft *draft, struct error *err)
{
    static const char lead[] = " Answer: The top 10 words that appear most often in the list are:";
    const int64_t length = draft->cell->length, n = draft_cwe_words(draft->material, length);
    const bool pairs = takes_pairs(draft->material, length);
    const struct frequencies *f = length < LONG ? &brief : &full;
    int32_t *words = draw_words(draft, n, err);
    int status = -1;
    if (!words)
        return -1;
    if (write_list(draft, words, f->example_words, (int[]){f->example_common, f->example_uncommon}, err) != 0)
        goto done;
    fputs(lead, draft->prompt);
    for (int i = 0; i < COMMON; i++) {
        fputc(' ', draft->prompt);
        write_item(i + 1, words[i], pairs, draft->prompt);
    }
    fputc('\n', draft->prompt);
    draft_shuffle(draft, words, n);
    if (write_list(draft, words, draft->size, (int[]){f->common, f->uncommon}, err) != 0)
        goto done;
    snprintf(draft->lead, sizeof draft->lead, "%s", lead);
    for (int i = 0; i < COMMON; i++) {
        char common[NEEDLE_EXPECTED_BYTES];
        spell_word(words[i], pairs, common);
        draft_expect(draft, common);
    }
    status = 0;
done:
    free(words);
    return status;
}

/* ---- fwe: coded words whose frequencies follow a zeta distribution ---- */

enum { CODED = 6, ASKED = 3 };

static const double zeta_of_two = 1.6449340668482264;

/* How often the word of a rank (from 1) stands among about n words; rank 1 is the noise "...". */
static int64_t zeta_count(int64_t n, int64_t rank)
{
    return (int64_t)((double)n / ((double)rank * (double)rank) / zeta_of_two);
}

static void draw_coded(struct draft *draft, char (*out)[CODED + 1], int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        bool taken = true;
        while (taken) {
            for (int c = 0; c < CODED; c++)
                out[i][c] = (char)('a' + draft_below(draft, 26));
            out[i][CODED] = '\0';
            taken = false;
            for (int64_t j = 0; j < i && j <= ASKED; j++) /* that two rare ones are equal does not matter */
                taken = taken || strcmp(out[i], out[j]) == 0;
        }
    }
}

static void write_coded(struct draft *draft, char (*words)[CODED + 1], const int32_t *list, int64_t n)
{
    fputs(
        "Read the following coded text and track the frequency of each coded word. Find the three most frequently "
        "appeared coded words.",
        draft->prompt);
    for (int64_t i = 0; i < n; i++)
        fprintf(draft->prompt, " %s", list[i] == 0 ? "..." : words[list[i]]);
    fputs("\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most "
          "frequently appeared words in the above coded text?",
          draft->prompt);
    snprintf(draft->lead, sizeof draft->lead,
             " Answer: According to the coded text above, the three most frequently appeared words are:");
    for (int i = 1; i <= ASKED; i++)
        draft_expect(draft, words[i]);
}

int draft_fwe(struct draft *draft, struct error *err)
{
    const int64_t vocabulary = i64_max(ASKED + 1, (draft->cell->length - needle_task_max_new(NEEDLE_FWE)) / 50);
    char(*words)[CODED + 1] = malloc((size_t)vocabulary * sizeof *words);
    int32_t *list = malloc((size_t)draft->size * sizeof *list);
    int status = 0;
    if (words && list) {
        int64_t n = 0;
        draw_coded(draft, words, vocabulary);
        for (int64_t w = 0; w < vocabulary; w++)
            for (int64_t i = zeta_count(draft->size, w + 1); i > 0; i--)
                list[n++] = (int32_t)w;
        draft_shuffle(draft, list, n);
        write_coded(draft, words, list, n);
    } else
        status = error_set(err, ERROR_RESOURCE, "no memory for %lld coded words", (long long)draft->size);
    free(words);
    free(list);
    return status;
}
