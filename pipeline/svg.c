#include "pipeline/svg.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* In pixels. */
enum {
    CELL_WIDTH = 52,
    CELL_HEIGHT = 26,
    MARGIN = 24,
    LABELS = 120, /* to the left of a map */
    TITLE = 30,   /* above it */
    AXIS = 40,    /* below it */
    HEADING = 58, /* above all */
    LEGEND = 44,  /* below all */
    LEGEND_STEPS = 20,
    LEAST_WIDTH = 420,
};

static void write_escaped(const char *text, FILE *out)
{
    for (; *text; text++)
        switch (*text) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        default:
            if ((unsigned char)*text >= ' ')
                fputc(*text, out);
        }
}

/* Dark blue, slate, grey, ochre, yellow: equal steps of lightness. */
struct colour {
    double red, green, blue;
};

static struct colour colour_of(double value)
{
    static const struct colour stops[] = {
        {0, 34, 78}, {63, 78, 107}, {124, 123, 120}, {187, 173, 108}, {254, 232, 56}};
    enum { LAST = sizeof stops / sizeof *stops - 1 };
    const double at = fmin(fmax(value, 0), 1) * LAST;
    const int i = at >= LAST ? LAST - 1 : (int)at;
    const double share = at - i;
    return (struct colour){
        stops[i].red + share * (stops[i + 1].red - stops[i].red),
        stops[i].green + share * (stops[i + 1].green - stops[i].green),
        stops[i].blue + share * (stops[i + 1].blue - stops[i].blue),
    };
}

static void write_box(int x, int y, int width, int height, double value, FILE *out)
{
    const struct colour c = colour_of(value);
    fprintf(out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#%02x%02x%02x\"/>\n", x, y, width,
            height, (unsigned)lround(c.red), (unsigned)lround(c.green), (unsigned)lround(c.blue));
}

/* A text with its class and anchor. */
static void write_text(int x, int y, const char *class, const char *text, FILE *out)
{
    fprintf(out, "<text x=\"%d\" y=\"%d\" class=\"%s\">", x, y, class);
    write_escaped(text, out);
    fputs("</text>\n", out);
}

static void write_cell(const struct svg_map *map, int row, int column, int x, int y, FILE *out)
{
    const double value = map->values[(ptrdiff_t)row * map->n_columns + column];
    char number[16];
    if (isnan(value)) {
        fprintf(out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" class=\"none\"/>\n", x, y, CELL_WIDTH - 1,
                CELL_HEIGHT - 1);
        return;
    }
    write_box(x, y, CELL_WIDTH - 1, CELL_HEIGHT - 1, value, out);
    snprintf(number, sizeof number, "%.0f", 100 * value);
    write_text(x + CELL_WIDTH / 2, y + CELL_HEIGHT / 2 + 4, value < 0.55 ? "light" : "dark", number, out);
}

/* Room for a text of the common fonts, generously. */
static int text_width(const char *text, int size)
{
    return (int)strlen(text) * size * 2 / 3;
}

/* The same for all maps of a figure, so that they stand in columns. */
static int map_width(const struct svg_figure *figure)
{
    int width = 0;
    for (int i = 0; i < figure->n; i++) {
        const int cells = figure->maps[i].n_columns * CELL_WIDTH, title = text_width(figure->maps[i].title, 12);
        const int inner = cells > title ? cells : title;
        width = inner > width ? inner : width;
    }
    return LABELS + width + MARGIN;
}

static int figure_width(const struct svg_figure *figure)
{
    const int across = figure->n < figure->across ? figure->n : figure->across;
    const int widths[] = {across * map_width(figure), text_width(figure->heading, 16),
                          text_width(figure->note, 12)};
    int width = LEAST_WIDTH;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        width = widths[i] > width ? widths[i] : width;
    return width + 2 * MARGIN;
}

static int map_height(const struct svg_map *map)
{
    return TITLE + map->n_rows * CELL_HEIGHT + AXIS;
}

static void write_map(const struct svg_map *map, int x, int y, FILE *out)
{
    const int left = x + LABELS, top = y + TITLE, bottom = top + map->n_rows * CELL_HEIGHT;
    write_text(left, y + 20, "title", map->title, out);
    write_text(left - 8, y + 20, "row", map->row_name, out);
    for (int row = 0; row < map->n_rows; row++) {
        write_text(left - 8, top + row * CELL_HEIGHT + CELL_HEIGHT / 2 + 4, "row", map->rows[row], out);
        for (int column = 0; column < map->n_columns; column++)
            write_cell(map, row, column, left + column * CELL_WIDTH, top + row * CELL_HEIGHT, out);
    }
    for (int column = 0; column < map->n_columns; column++)
        write_text(left + column * CELL_WIDTH + CELL_WIDTH / 2, bottom + 15, "column", map->columns[column], out);
    write_text(left, bottom + 31, "name", map->column_name, out);
}

static void write_legend(int x, int y, FILE *out)
{
    enum { STEP = 10 };
    write_text(x, y + 12, "name", "score, per cent: 0", out);
    x += 110;
    for (int i = 0; i < LEGEND_STEPS; i++)
        write_box(x + i * STEP, y, STEP, 14, (i + 0.5) / LEGEND_STEPS, out);
    write_text(x + LEGEND_STEPS * STEP + 6, y + 12, "name", "100", out);
}

/* Of the row of maps that begins with map `first`. */
static int row_height(const struct svg_figure *figure, int first)
{
    int height = 0;
    for (int i = first; i < figure->n && i < first + figure->across; i++)
        height = map_height(&figure->maps[i]) > height ? map_height(&figure->maps[i]) : height;
    return height;
}

static void write_head(const struct svg_figure *figure, int width, int height, FILE *out)
{
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
            "<style>text{font:12px sans-serif;fill:#222}.heading{font-size:16px;font-weight:bold}"
            ".title{font-weight:bold}.row{text-anchor:end}.column,.light,.dark{text-anchor:middle}"
            ".name{fill:#555}.light{fill:#fff}.dark{fill:#111}.none{fill:#fff;stroke:#ccc}</style>\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
            width, height, width, height, width, height);
    write_text(MARGIN, MARGIN + 6, "heading", figure->heading, out);
    write_text(MARGIN, MARGIN + 26, "name", figure->note, out);
}

void svg_write(const struct svg_figure *figure, FILE *out)
{
    int height = HEADING + LEGEND;
    for (int i = 0; i < figure->n; i += figure->across)
        height += row_height(figure, i);
    write_head(figure, figure_width(figure), height, out);
    int y = HEADING;
    for (int i = 0; i < figure->n; i += figure->across) {
        int x = MARGIN;
        for (int k = i; k < figure->n && k < i + figure->across; k++) {
            write_map(&figure->maps[k], x, y, out);
            x += map_width(figure);
        }
        y += row_height(figure, i);
    }
    write_legend(MARGIN, y + 8, out);
    fputs("</svg>\n", out);
}
