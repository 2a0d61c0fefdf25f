/* A progress display that writes to memory, and the time by which it goes; close_display is the tests' teardown.
 * Include it behind cmocka.h. */
#ifndef LONGHAUL_TESTS_PROGRESS_DISPLAY_H
#define LONGHAUL_TESTS_PROGRESS_DISPLAY_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/progress.h"

static struct {
    FILE *out;
    char *text;
    size_t length;
    double now;
    struct progress *progress;
} display;

static inline double test_clock(void *context)
{
    return *(double *)context;
}

static inline void open_display(bool live, const struct progress_totals *totals)
{
    struct error err;
    const struct progress_options options = {live, 200, test_clock, &display.now, NULL};
    display.out = open_memstream(&display.text, &display.length);
    display.now = 1000;
    display.progress = progress_create(display.out, &options, totals, &err);
    assert_non_null(display.progress);
}

/* All that has been written, and forget it. */
static inline const char *written(void)
{
    static char copy[65536];
    fflush(display.out);
    assert_true(display.length < sizeof copy);
    memcpy(copy, display.text, display.length);
    copy[display.length] = '\0';
    rewind(display.out);
    return copy;
}

static inline int close_display(void **state)
{
    (void)state;
    progress_free(display.progress);
    fclose(display.out);
    free(display.text);
    return 0;
}

#endif
