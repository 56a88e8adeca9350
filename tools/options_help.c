/* tools/options_help.c - the text of --help, made from the table; see options.h. */
#include "tools/options.h"
#include "tools/options_value.h"

#include <string.h>

enum { WIDTH = 80, HELP_COLUMN = 32 };

static const char *value_name(const struct option *desc)
{
    if (desc->value)
        return desc->value;
    switch (desc->type) {
    case OPTION_TYPE_INT: return "N";
    case OPTION_TYPE_INTS: return "N,...";
    case OPTION_TYPE_REAL: return "X";
    case OPTION_TYPE_CONFIG: return "FILE";
    case OPTION_TYPE_CHOICE: return "NAME";
    case OPTION_TYPE_BOOL: return "";
    default: return "TEXT";
    }
}

/* What the help line ends with: the default, and for a choice its names. */
static void describe_default(const struct option *desc, void *values, bool given, char *out, size_t size)
{
    void *at = option_at(desc, values);
    out[0] = 0;
    if (given || desc->required)
        return;
    switch (desc->type) {
    case OPTION_TYPE_STRING:
        if (*(char **)at)
            snprintf(out, size, " (default %s)", *(char **)at);
        break;
    case OPTION_TYPE_INT: snprintf(out, size, " (default %lld)", (long long)option_int(desc, values)); break;
    case OPTION_TYPE_REAL: snprintf(out, size, " (default %g)", option_real(desc, values)); break;
    case OPTION_TYPE_BOOL:
        if (*(bool *)at)
            snprintf(out, size, " (default; --no-... turns it off)");
        break;
    case OPTION_TYPE_CHOICE: snprintf(out, size, " (default %s)", desc->choices[*(int *)at]); break;
    default: break;
    }
}

static void append(char *text, size_t size, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", more);
}

/* Prints words from column `column` on, breaking lines before WIDTH and indenting each to HELP_COLUMN. */
static void print_wrapped(const char *text, int column, FILE *to)
{
    bool first = true;
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (!first && column + 1 + word > WIDTH) {
            fprintf(to, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
            first = true;
        }
        column += fprintf(to, "%s%.*s", first ? "" : " ", word, text);
        first = false;
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', to);
}

static void print_option(const struct option *desc, void *values, bool given, FILE *to)
{
    char name[72], left[160], text[1024], end[160];
    size_t i = 0;
    for (; desc->name[i] && i < sizeof name - 1; i++)
        name[i] = desc->name[i] == '_' ? '-' : desc->name[i];
    name[i] = 0;
    snprintf(left, sizeof left, "  --%s%s%s", name, value_name(desc)[0] ? " " : "", value_name(desc));
    int column = fprintf(to, "%s", left);
    if (column + 2 > HELP_COLUMN) {
        fputc('\n', to);
        column = 0;
    }
    fprintf(to, "%*s", HELP_COLUMN - column, "");
    snprintf(text, sizeof text, "%s", desc->help ? desc->help : "");
    for (int c = 0; desc->type == OPTION_TYPE_CHOICE && desc->choices[c]; c++) {
        append(text, sizeof text, c ? ", " : ": ");
        append(text, sizeof text, desc->choices[c]);
    }
    if (desc->required)
        append(text, sizeof text, " (must be given)");
    describe_default(desc, values, given, end, sizeof end);
    append(text, sizeof text, end);
    print_wrapped(text, HELP_COLUMN, to);
}

void options_print_help(const struct options *o, FILE *to)
{
    fputs("usage: ", to);
    print_wrapped(o->usage, (int)strlen("usage: "), to);
    for (size_t i = 0; i < o->n; i++) {
        if (o->table[i].section)
            fprintf(to, "\n%s:\n", o->table[i].section);
        else if (i == 0)
            fprintf(to, "\nOptions:\n");
        print_option(&o->table[i], o->values, o->source[i] != OPTION_FROM_DEFAULT, to);
    }
    fprintf(to, "  --help%*sthis text\n", HELP_COLUMN - 8, "");
}
