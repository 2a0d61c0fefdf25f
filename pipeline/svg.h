/* Heat maps as SVG: tables of numbers from 0 to 1, each cell coloured and with its number in it, one map beside or
 * below the other. Colours go from dark blue through grey to yellow: their lightness rises evenly, so that they are
 * told apart in any kind of colour blindness and in print. Plain SVG 1.1 without scripts or outside fonts.
 */
#ifndef LONGHAUL_PIPELINE_SVG_H
#define LONGHAUL_PIPELINE_SVG_H

#include <stdio.h>

struct svg_map {
    const char *title;
    const char *row_name, *column_name; /* what the labels are */
    int n_rows, n_columns;
    const char *const *rows, *const *columns; /* labels */
    const double *values;                     /* [n_rows][n_columns] 0 .. 1; NAN: an empty cell */
};

/* Maps [n] in rows of `across` under a heading. Texts are escaped. A failed write is left to ferror. */
struct svg_figure {
    const char *heading, *note; /* the note stands below the heading, smaller */
    const struct svg_map *maps;
    int n, across;
};
void svg_write(const struct svg_figure *figure, FILE *out);

#endif
