/* Needle tasks that hide sentences: needle, passkey, niah. */
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "pipeline/needle_draft.h"
#include "pipeline/needle_words.h"

const char needle_noise[] =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

/* ---- sentences in a text ---- */

struct hidden {
    int64_t place; /* before which sentence, or line */
    char text[224];
};

enum { MOST_HIDDEN = 4 };

/* size words of the text, with needles [n] (their places rising) between its sentences. */
static void write_text(struct draft *draft, int64_t sentence, const struct hidden *needles, int n)
{
    const struct haystack *text = draft->material->text;
    int64_t done = 0;
    for (int i = 0; i <= n; i++) {
        const int64_t end =
            i < n ? haystack_words_before(text, sentence, needles[i].place, draft->size) : draft->size;
        if (end > done)
            fputs(i > 0 ? " " : "", draft->prompt);
        haystack_write(text, text->sentences[sentence] + done, end - done, draft->prompt);
        if (i < n)
            fprintf(draft->prompt, "%s%s", i > 0 || end > 0 ? " " : "", needles[i].text);
        done = end;
    }
}

int draft_sandwich(struct draft *draft, struct error *err)
{
    (void)err;
    const struct haystack *text = draft->material->text;
    const int64_t sentence = draft_below(draft, text->n_sentences);
    struct hidden needle = {haystack_sentences(text, sentence, draft->size) * draft->cell->depth / 100,
                            "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a "
                            "sunny day."};
    draft->system =
        "You are a helpful AI bot that answers questions for a user. Keep your response short and direct";
    write_text(draft, sentence, &needle, 1);
    fputs(
        "\n\nWhat is the best thing to do in San Francisco? Don't give information outside the document or repeat "
        "your findings",
        draft->prompt);
    draft_expect(draft, "sandwich");
    draft_expect(draft, "Dolores Park");
    draft_expect(draft, "sunny day");
    return 0;
}

int draft_passkey(struct draft *draft, struct error *err)
{
    (void)err;
    const struct haystack *noise = draft->material->noise;
    const int64_t before = draft->size * draft->cell->depth / 100;
    char key[8];
    snprintf(key, sizeof key, "%d", (int)(10000 + draft_below(draft, 40001)));
    fputs(
        "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz "
        "you about the important information there.\n",
        draft->prompt);
    haystack_write(noise, 0, before, draft->prompt);
    fprintf(draft->prompt, "\nThe pass key is %s. Remember it. %s is the pass key.\n", key, key);
    haystack_write(noise, 0, draft->size - before, draft->prompt);
    fputs("\nWhat is the pass key?", draft->prompt);
    snprintf(draft->lead, sizeof draft->lead, " The pass key is");
    draft_expect(draft, key);
    return 0;
}

/* ---- niah ---- */

enum hay { HAY_NOISE, HAY_TEXT, HAY_NEEDLES };
enum kind { KIND_WORDS, KIND_NUMBERS, KIND_UUIDS };

struct niah {
    enum hay hay;
    enum kind key, value;
    int keys, values, queries;
};

static const struct niah niahs[NEEDLE_TASKS] = {
    [NEEDLE_NIAH_SINGLE_1] = {HAY_NOISE, KIND_WORDS, KIND_NUMBERS, 1, 1, 1},
    [NEEDLE_NIAH_SINGLE_2] = {HAY_TEXT, KIND_WORDS, KIND_NUMBERS, 1, 1, 1},
    [NEEDLE_NIAH_SINGLE_3] = {HAY_TEXT, KIND_WORDS, KIND_UUIDS, 1, 1, 1},
    [NEEDLE_NIAH_MULTIKEY_1] = {HAY_TEXT, KIND_WORDS, KIND_NUMBERS, 4, 1, 1},
    [NEEDLE_NIAH_MULTIKEY_2] = {HAY_NEEDLES, KIND_WORDS, KIND_NUMBERS, 1, 1, 1},
    [NEEDLE_NIAH_MULTIKEY_3] = {HAY_NEEDLES, KIND_UUIDS, KIND_UUIDS, 1, 1, 1},
    [NEEDLE_NIAH_MULTIVALUE] = {HAY_TEXT, KIND_WORDS, KIND_NUMBERS, 1, 4, 1},
    [NEEDLE_NIAH_MULTIQUERY] = {HAY_TEXT, KIND_WORDS, KIND_NUMBERS, 4, 1, 4},
};

static void draw(struct draft *draft, enum kind kind, char out[NEEDLE_EXPECTED_BYTES])
{
    if (kind == KIND_NUMBERS)
        snprintf(out, NEEDLE_EXPECTED_BYTES, "%d", (int)(1000000 + draft_below(draft, 9000000)));
    else if (kind == KIND_WORDS) {
        const char *adjective = needle_adjectives[draft_below(draft, NEEDLE_ADJECTIVES)];
        snprintf(out, NEEDLE_EXPECTED_BYTES, "%s-%s", adjective, needle_nouns[draft_below(draft, NEEDLE_NOUNS)]);
    } else { /* random, version 4 */
        uint32_t bits[4];
        for (int i = 0; i < 4; i++)
            bits[i] = (uint32_t)draft_below(draft, (int64_t)1 << 32);
        snprintf(out, NEEDLE_EXPECTED_BYTES, "%08x-%04x-4%03x-%04x-%04x%08x", bits[0], bits[1] >> 16,
                 bits[1] & 0xfffu, 0x8000u | (bits[2] >> 16 & 0x3fffu), bits[2] & 0xffffu, bits[3]);
    }
}

/* A key that is none of keys [n]. */
static void draw_other(struct draft *draft, enum kind kind, char (*keys)[NEEDLE_EXPECTED_BYTES], int n,
                       char out[NEEDLE_EXPECTED_BYTES])
{
    bool taken = true;
    while (taken) {
        draw(draft, kind, out);
        taken = false;
        for (int i = 0; i < n; i++)
            taken = taken || strcmp(out, keys[i]) == 0;
    }
}

static void write_needle(char *out, size_t size, const struct niah *niah, const char *key, const char *value)
{
    snprintf(out, size, "One of the special magic %s for %s is: %s.",
             niah->value == KIND_NUMBERS ? "numbers" : "uuids", key, value);
}

struct asked {
    char keys[MOST_HIDDEN][NEEDLE_EXPECTED_BYTES];
    struct hidden needles[MOST_HIDDEN];
    int n_needles;
};

/* Draws keys and values; those that are asked for are the first, and are expected. */
static void draw_needles(struct draft *draft, const struct niah *niah, struct asked *out)
{
    out->n_needles = 0;
    for (int k = 0; k < niah->keys; k++) {
        char key[NEEDLE_EXPECTED_BYTES];
        draw_other(draft, niah->key, out->keys, k, key);
        memcpy(out->keys[k], key, sizeof key);
        for (int v = 0; v < niah->values; v++) {
            char value[NEEDLE_EXPECTED_BYTES];
            struct hidden *needle = &out->needles[out->n_needles++];
            draw(draft, niah->value, value);
            write_needle(needle->text, sizeof needle->text, niah, key, value);
            if (k < niah->queries)
                draft_expect(draft, value);
        }
    }
}

/* Depths as RULER draws them: 40 values from 0 to 100. */
enum { DEPTHS = 40 };

static int by_place(const void *a, const void *b)
{
    const struct hidden *left = a, *right = b;
    return (left->place > right->place) - (left->place < right->place);
}

/* The one needle that is asked for has the cell's depth, where the task has one; the others have drawn ones. */
static void place_needles(struct draft *draft, int64_t places, struct asked *asked)
{
    int64_t depths[MOST_HIDDEN];
    int32_t order[MOST_HIDDEN] = {0, 1, 2, 3};
    draft_choose(draft, DEPTHS, asked->n_needles, depths);
    draft_shuffle(draft, order, asked->n_needles);
    for (int i = 0; i < asked->n_needles; i++) {
        const int64_t depth = (depths[order[i]] * 100 + (DEPTHS - 1) / 2) / (DEPTHS - 1);
        asked->needles[i].place = places * depth / 100;
    }
    if (needle_task_has_depth(draft->cell->task))
        asked->needles[0].place = places * draft->cell->depth / 100;
    qsort(asked->needles, (size_t)asked->n_needles, sizeof *asked->needles, by_place);
}

/* Lines of noise or of other needles, with the one that is asked for between them. */
static void write_lines(struct draft *draft, const struct niah *niah, struct asked *asked)
{
    for (int64_t line = 0; line <= draft->size; line++) {
        char key[NEEDLE_EXPECTED_BYTES], value[NEEDLE_EXPECTED_BYTES];
        struct hidden other;
        if (line == asked->needles[0].place)
            fprintf(draft->prompt, "%s\n", asked->needles[0].text);
        if (line == draft->size)
            break;
        if (niah->hay == HAY_NOISE) {
            fprintf(draft->prompt, "%s\n", needle_noise);
            continue;
        }
        draw_other(draft, niah->key, asked->keys, niah->keys, key);
        draw(draft, niah->value, value);
        write_needle(other.text, sizeof other.text, niah, key, value);
        fprintf(draft->prompt, "%s\n", other.text);
    }
}

/* "a", "a, and b", "a, b, and c". */
static void write_query(const struct niah *niah, const struct asked *asked, char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (int k = 0; k < niah->queries; k++) {
        const char *before = k == 0 ? "" : k == niah->queries - 1 ? ", and " : ", ";
        n += (size_t)snprintf(out + n, size - n, "%s%s", before, asked->keys[k]);
    }
}

int draft_niah(struct draft *draft, struct error *err)
{
    (void)err;
    const struct niah *niah = &niahs[draft->cell->task];
    const bool one = niah->queries * niah->values == 1;
    const char *kind = niah->value == KIND_NUMBERS ? one ? "number" : "numbers" : one ? "uuid" : "uuids";
    struct asked asked;
    char query[MOST_HIDDEN * NEEDLE_EXPECTED_BYTES];
    draw_needles(draft, niah, &asked);
    write_query(niah, &asked, query, sizeof query);
    fprintf(draft->prompt,
            "%s special magic %s %s hidden within the following text. Make sure to memorize it. I will quiz you "
            "about the %s afterwards.\n",
            one ? "A" : "Some", kind, one ? "is" : "are", kind);
    if (niah->hay == HAY_TEXT) {
        const struct haystack *text = draft->material->text;
        const int64_t sentence = draft_below(draft, text->n_sentences);
        place_needles(draft, haystack_sentences(text, sentence, draft->size), &asked);
        write_text(draft, sentence, asked.needles, asked.n_needles);
        fputc('\n', draft->prompt);
    } else {
        place_needles(draft, draft->size, &asked);
        write_lines(draft, niah, &asked);
    }
    fprintf(draft->prompt, "What %s special magic %s for %s mentioned in the provided text?",
            one ? "is the" : "are all the", kind, query);
    snprintf(draft->lead, sizeof draft->lead, " The special magic %s for %s mentioned in the provided text %s",
             kind, query, one ? "is" : "are");
    return 0;
}
