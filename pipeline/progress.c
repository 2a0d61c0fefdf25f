#include "pipeline/progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/line.h"
#include "base/num.h"

static const double live_seconds = 0.2, plain_seconds = 10;
static const double memory_seconds = 300; /* what is older weighs less than 1/e in a rate */

/* Tokens, with what later ones count for more, and the seconds they took. */
struct rate {
    double tokens, extra, seconds;
};

struct progress {
    FILE *out;
    struct progress_options options;
    struct progress_totals totals;
    struct progress_state state; /* the latest; its document is not kept here */
    char *document;
    bool begun;
    double changed; /* when the counts of tokens last changed */
    double drawn;   /* when a line was last written */
    struct rate rates[PROGRESS_PHASES];
};

static double monotonic_clock(void *context)
{
    (void)context;
    return clock_seconds();
}

void progress_defaults(struct progress_options *options, FILE *out)
{
    struct winsize size;
    int fd = fileno(out);
    bool sized = fd >= 0 && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    *options =
        (struct progress_options){fd >= 0 && isatty(fd), sized ? size.ws_col : 80, monotonic_clock, NULL, NULL};
}

static const char *unit_of(const struct progress *progress)
{
    return progress->options.unit ? progress->options.unit : "document";
}

struct progress *progress_create(FILE *out, const struct progress_options *options,
                                 const struct progress_totals *totals, struct error *err)
{
    struct progress *progress = calloc(1, sizeof *progress);
    if (!progress) {
        error_errno(err, "the progress display");
        return NULL;
    }
    progress->out = out;
    progress->options = *options;
    progress->totals = *totals;
    progress->drawn = -INFINITY;
    return progress;
}

void progress_set_totals(struct progress *progress, const struct progress_totals *totals)
{
    progress->totals = *totals;
}

/* ---- numbers ---- */

/* "999", "45.2k", "1.20M": three digits. */
static const char *show_count(char out[16], double n)
{
    static const char units[] = " kMGTP";
    int unit = 0;
    for (; n >= 999.5 && unit < 5; unit++)
        n /= 1000;
    if (unit == 0)
        snprintf(out, 16, "%.0f", n);
    else
        snprintf(out, 16, "%.*f%c", n < 9.995 ? 2 : n < 99.95 ? 1 : 0, n, units[unit]);
    return out;
}

/* "45s", "4m10s", "3h05m", "2d04h". */
static const char *show_seconds(char out[24], double seconds)
{
    int64_t s = seconds < 1e9 ? (int64_t)(seconds + 0.5) : 1000000000;
    if (s < 60)
        snprintf(out, 24, "%ds", (int)s);
    else if (s < 3600)
        snprintf(out, 24, "%dm%02ds", (int)(s / 60), (int)(s % 60));
    else if (s < 86400)
        snprintf(out, 24, "%dh%02dm", (int)(s / 3600), (int)(s / 60 % 60));
    else
        snprintf(out, 24, "%dd%02dh", (int)(s / 86400), (int)(s / 3600 % 24));
    return out;
}

static double rate_of(const struct rate *rate)
{
    return rate->seconds > 0 ? rate->tokens / rate->seconds : 0;
}

/* Seconds that so many tokens and what they count for more take; the rate is not 0. */
static double seconds_for(const struct rate *rate, double tokens, double extra)
{
    return (tokens + extra) * rate->seconds / (rate->tokens + rate->extra);
}

/* Share the time since the counts last changed between the phases they changed in. Where both did, at once on
 * several groups of ranks, by what each would have taken at its rate so far. */
static void measure(struct progress *progress, const struct progress_state *state, double now)
{
    const double extra[] = {
        [PROGRESS_PREFILL] = state->extra_done - progress->state.extra_done, [PROGRESS_DECODE] = 0};
    double tokens[PROGRESS_PHASES], expected[PROGRESS_PHASES], sum = 0;
    const double seconds = now - progress->changed;
    for (int i = 0; i < PROGRESS_PHASES; i++) {
        tokens[i] = (double)(state->tokens_done[i] - progress->state.tokens_done[i]);
        const struct rate *rate = &progress->rates[i];
        expected[i] = tokens[i] <= 0 ? 0 : rate_of(rate) > 0 ? seconds_for(rate, tokens[i], extra[i]) : seconds / 2;
        sum += expected[i];
    }
    if (sum <= 0)
        return;
    for (int i = 0; i < PROGRESS_PHASES; i++) {
        struct rate *rate = &progress->rates[i];
        const double share = seconds * expected[i] / sum, keep = exp(-share / memory_seconds);
        rate->tokens = rate->tokens * keep + (expected[i] > 0 ? tokens[i] : 0);
        rate->extra = rate->extra * keep + (expected[i] > 0 ? extra[i] : 0);
        rate->seconds = rate->seconds * keep + share;
    }
    progress->changed = now;
}

/* Seconds left; *all is false when a phase with work left has no rate yet. */
static double time_left(const struct progress *progress, bool *all)
{
    const double extra[] = {
        [PROGRESS_PREFILL] = progress->totals.extra - progress->state.extra_done, [PROGRESS_DECODE] = 0};
    double left = 0;
    *all = true;
    for (int i = 0; i < PROGRESS_PHASES; i++) {
        const int64_t tokens = progress->totals.tokens[i] - progress->state.tokens_done[i];
        const struct rate *rate = &progress->rates[i];
        if (tokens > 0 && rate_of(rate) > 0)
            left += seconds_for(rate, (double)tokens, extra[i]);
        else if (tokens > 0)
            *all = false;
    }
    return left;
}

/* ---- lines ---- */

/* The length of what fits in so many columns of UTF-8 text. Characters from U+1000 on, many of them wide, are
 * taken to fill two. */
static size_t cut_length(const char *text, int columns)
{
    size_t at = 0;
    while (text[at]) {
        columns -= (unsigned char)text[at] >= 0xe1 ? 2 : 1;
        if (columns < 0)
            break;
        at++;
        while (((unsigned char)text[at] & 0xc0u) == 0x80u)
            at++;
    }
    return at;
}

static void format_line(const struct progress *progress, char *line, size_t size)
{
    static const char *const phases[] = {"prefill", "decode"};
    const enum progress_phase phase = progress->state.phase;
    const double rate = rate_of(&progress->rates[phase]);
    char done[16], total[16], speed[16], duration[24], left[48] = "";
    bool all;
    const double seconds = time_left(progress, &all);
    if (all || seconds > 0)
        snprintf(left, sizeof left, "  %s%s left", all ? "" : ">", show_seconds(duration, seconds));
    snprintf(line, size, "%-7s  %s %lld/%lld  tokens %s/%s  %s/s%s  %s", phases[phase], unit_of(progress),
             (long long)i64_min(progress->state.documents_done + 1, progress->totals.documents),
             (long long)progress->totals.documents, show_count(done, (double)progress->state.tokens_done[phase]),
             show_count(total, (double)progress->totals.tokens[phase]), rate > 0 ? show_count(speed, rate) : "-",
             left, progress->document ? progress->document : "");
}

static void draw(struct progress *progress, double now)
{
    char line[1024];
    format_line(progress, line, sizeof line);
    if (progress->options.live) /* one column less: a full line would wrap on some terminals */
        fprintf(progress->out, "\r%.*s\033[K", (int)cut_length(line, progress->options.columns - 1), line);
    else
        fprintf(progress->out, "%s\n", line);
    fflush(progress->out);
    progress->drawn = now;
}

static void keep_document(struct progress *progress, const char *document)
{
    if (progress->document && document && strcmp(progress->document, document) == 0)
        return;
    free(progress->document);
    progress->document = document ? strdup(document) : NULL;
}

void progress_update(struct progress *progress, const struct progress_state *state)
{
    const double now = progress->options.clock(progress->options.clock_context);
    if (progress->begun)
        measure(progress, state, now);
    else
        progress->changed = now;
    progress->begun = true;
    progress->state = *state;
    progress->state.document = NULL;
    keep_document(progress, state->document);
    if (now - progress->drawn >= (progress->options.live ? live_seconds : plain_seconds))
        draw(progress, now);
}

/* Make way for a line that stays, and put the live line back under it. */
static void clear_line(struct progress *progress)
{
    if (progress->options.live)
        fputs("\r\033[K", progress->out);
}

static void restore_line(struct progress *progress)
{
    if (progress->options.live && progress->begun)
        draw(progress, progress->options.clock(progress->options.clock_context));
    else
        fflush(progress->out);
}

void progress_document_done(struct progress *progress, const char *document, const char *outcome)
{
    progress->state.documents_done++;
    const bool told_later = progress->options.unit || strcmp(outcome, "ok") == 0; /* trials are in a table */
    if (!progress->options.live || !told_later)
        progress_note(progress, "%s %lld/%lld  %s  %s", unit_of(progress),
                      (long long)progress->state.documents_done, (long long)progress->totals.documents, outcome,
                      document);
}

void progress_note(struct progress *progress, const char *format, ...)
{
    va_list arguments;
    clear_line(progress);
    va_start(arguments, format);
    line_print_list(progress->out, format, arguments);
    va_end(arguments);
    restore_line(progress);
}

void progress_free(struct progress *progress)
{
    if (!progress)
        return;
    clear_line(progress);
    fflush(progress->out);
    free(progress->document);
    free(progress);
}
