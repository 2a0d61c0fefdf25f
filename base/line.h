/* Lines for people: what they tell may hold a file's name, and a name may hold anything but a slash. */
#ifndef LONGHAUL_BASE_LINE_H
#define LONGHAUL_BASE_LINE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

/* Control characters of text [length] become '?': it is one line then, and moves no terminal's cursor. */
void line_clean(char *text, size_t length);

/* One line and its newline, cleaned; more than 16,000 bytes are cut. */
void line_print(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
void line_print_list(FILE *out, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));

#endif
