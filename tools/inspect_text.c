/* tools/inspect_text.c - see inspect_text.h. */
#include "tools/inspect_text.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { MAX_STRING = 100, MAX_SENTENCE = 2000, MAX_LIST = 16 };

static void print_string(const char *text, size_t max, FILE *to)
{
    size_t n = 0;
    for (; text[n] && n < max; n++) {
        if ((unsigned char)text[n] < 0x20 || text[n] == 0x7f)
            fprintf(to, text[n] == '\n' ? "\\n" : "\\x%02x", (unsigned char)text[n]);
        else
            putc(text[n], to);
    }
    while (((unsigned char)text[n] & 0xc0) == 0x80) /* the rest of a character */
        putc(text[n++], to);
    if (text[n])
        fputs(" ...", to);
}

/* 134515008 as 134,515,008; a number that is no integer as it is. */
static void print_number(double x, FILE *to)
{
    if (x != floor(x) || fabs(x) < 10000 || fabs(x) > 9e15) {
        fprintf(to, "%.9g", x);
        return;
    }
    char digits[32];
    snprintf(digits, sizeof digits, "%.0f", fabs(x));
    if (x < 0)
        putc('-', to);
    for (size_t i = 0, n = strlen(digits); i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            putc(',', to);
        putc(digits[i], to);
    }
}

static void print_bytes(double bytes, FILE *to)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    print_number(bytes, to);
    if (bytes < 1024)
        return;
    int unit = -1;
    for (; bytes >= 1024 && unit < 3; unit++)
        bytes /= 1024;
    fprintf(to, " (%.1f %s)", bytes, units[unit]);
}

/* What inspect itself says is not cut; what a file says may be a chat template of pages. */
static bool is_ours(const cJSON *item)
{
    return item->string && (strcmp(item->string, "path") == 0 || strcmp(item->string, "reason") == 0);
}

static void print_scalar(const cJSON *item, FILE *to)
{
    if (cJSON_IsString(item))
        print_string(item->valuestring, is_ours(item) ? MAX_SENTENCE : MAX_STRING, to);
    else if (cJSON_IsNumber(item) && item->string && strcmp(item->string, "bytes") == 0)
        print_bytes(item->valuedouble, to);
    else if (cJSON_IsNumber(item))
        print_number(item->valuedouble, to);
    else
        fputs(cJSON_IsTrue(item) ? "yes" : cJSON_IsFalse(item) ? "no" : "-", to);
}

static void print_list(const cJSON *list, FILE *to)
{
    int n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        if (n++ == MAX_LIST) {
            fprintf(to, ", ... %d in all", cJSON_GetArraySize(list));
            break;
        }
        fputs(n > 1 ? ", " : "", to);
        if (cJSON_IsObject(item) || cJSON_IsArray(item))
            fputs("...", to);
        else
            print_scalar(item, to);
    }
}

static void print_tensors(const cJSON *list, FILE *to)
{
    int width = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        int n = (int)strlen(cJSON_GetObjectItem(item, "name")->valuestring);
        width = n > width && n <= MAX_STRING ? n : width;
    }
    cJSON_ArrayForEach(item, list) {
        const char *name = cJSON_GetObjectItem(item, "name")->valuestring;
        fputs("  ", to);
        print_string(name, MAX_STRING, to);
        fprintf(to, "%*s  %-7s  [", width > (int)strlen(name) ? width - (int)strlen(name) : 0, "",
                cJSON_GetObjectItem(item, "dtype")->valuestring);
        const cJSON *dim, *shape = cJSON_GetObjectItem(item, "shape");
        cJSON_ArrayForEach(dim, shape)
            fprintf(to, "%s%.0f", dim == shape->child ? "" : ", ", dim->valuedouble);
        fputs("]\n", to);
    }
}

static void print_object(const cJSON *object, int indent, FILE *to)
{
    int width = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        int n = (int)strlen(item->string);
        width = n > width && n <= 40 ? n : width;
    }
    cJSON_ArrayForEach(item, object) {
        fprintf(to, "%*s", indent, "");
        print_string(item->string, MAX_STRING, to);
        if (cJSON_IsObject(item)) {
            putc('\n', to);
            print_object(item, indent + 2, to);
            continue;
        }
        if (strcmp(item->string, "tensors") == 0 && cJSON_IsArray(item)) {
            putc('\n', to);
            print_tensors(item, to);
            continue;
        }
        int gap = width - (int)strlen(item->string);
        fprintf(to, "%*s  ", gap > 0 ? gap : 0, "");
        if (cJSON_IsArray(item))
            print_list(item, to);
        else
            print_scalar(item, to);
        putc('\n', to);
    }
}

void inspect_print_text(const cJSON *document, FILE *to) { print_object(document, 0, to); }
