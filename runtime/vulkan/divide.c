/* runtime/vulkan/divide.c - see divide.h. Numbers are those of the SPIR-V specification. */
#include "runtime/vulkan/divide.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    OP_TYPE_VECTOR = 23, OP_TYPE_POINTER = 32, OP_CONSTANT = 43, OP_CONSTANT_COMPOSITE = 44, OP_VARIABLE = 59, OP_ACCESS_CHAIN = 65,
    OP_IN_BOUNDS_ACCESS_CHAIN = 66, OP_DECORATE = 71,
    DECORATION_BUILTIN = 11, BUILTIN_NUM_WORKGROUPS = 24, CLASS_PRIVATE = 6,
};
#define STRIDE 65535u
#define ADDED (4 + 4 + 4 + 6 + 5) /* words that the new declarations take, the variable's own with its initialiser among them */

struct found {
    uint32_t variable, vector, scalar; /* ids: the built-in, its type uvec3, uint */
    size_t at;                         /* word of its OpVariable */
};

static uint32_t count_of(uint32_t word) { return word >> 16; }

/* The first instruction of this opcode whose operand `operand` is `value`; 0: none. */
static size_t find(const uint32_t *words, size_t n, uint32_t code, uint32_t operand, uint32_t value)
{
    for (size_t i = 5; i < n; i += count_of(words[i]))
        if ((words[i] & 0xffff) == code && count_of(words[i]) > operand && words[i + operand] == value)
            return i;
    return 0;
}

static bool is_whole(const uint32_t *words, size_t n)
{
    size_t i = 5;
    while (i < n && count_of(words[i]) && count_of(words[i]) <= n - i)
        i += count_of(words[i]);
    return n > 5 && i == n;
}

/* False: the module reads the built-in in a way that is not understood. `variable` 0: it does not read it at all. */
static bool look(const uint32_t *words, size_t n, struct found *f)
{
    *f = (struct found){0};
    for (size_t i = 5; i < n; i += count_of(words[i]))
        if ((words[i] & 0xffff) == OP_DECORATE && count_of(words[i]) == 4 && words[i + 2] == DECORATION_BUILTIN &&
            words[i + 3] == BUILTIN_NUM_WORKGROUPS)
            f->variable = words[i + 1];
    if (!f->variable)
        return true;
    f->at = find(words, n, OP_VARIABLE, 2, f->variable);
    size_t pointer = f->at ? find(words, n, OP_TYPE_POINTER, 1, words[f->at + 1]) : 0;
    f->vector = pointer && count_of(words[pointer]) == 4 ? words[pointer + 3] : 0;
    size_t vector = f->vector ? find(words, n, OP_TYPE_VECTOR, 1, f->vector) : 0;
    f->scalar = vector && count_of(words[vector]) == 4 && words[vector + 3] == 3 ? words[vector + 2] : 0;
    return f->scalar != 0 && count_of(words[f->at]) == 4;
}

static void emit(uint32_t *out, size_t *at, uint32_t code, const uint32_t *operands, uint32_t n)
{
    out[(*at)++] = (n + 1) << 16 | code;
    memcpy(out + *at, operands, n * sizeof *operands);
    *at += n;
}

/* A private variable of the same id that begins as uvec3(65535), with the pointer types that it and its components need. */
static void declare(uint32_t *out, size_t *at, const struct found *f, uint32_t id)
{
    const uint32_t to_vector = id, to_scalar = id + 1, stride = id + 2, all = id + 3;
    emit(out, at, OP_TYPE_POINTER, (uint32_t[]){to_vector, CLASS_PRIVATE, f->vector}, 3);
    emit(out, at, OP_TYPE_POINTER, (uint32_t[]){to_scalar, CLASS_PRIVATE, f->scalar}, 3);
    emit(out, at, OP_CONSTANT, (uint32_t[]){f->scalar, stride, STRIDE}, 3);
    emit(out, at, OP_CONSTANT_COMPOSITE, (uint32_t[]){f->vector, all, stride, stride, stride}, 5);
    emit(out, at, OP_VARIABLE, (uint32_t[]){to_vector, f->variable, CLASS_PRIVATE, all}, 4);
}

uint32_t *divide_spirv(const uint32_t *words, size_t n, size_t *n_out)
{
    struct found f;
    *n_out = 0;
    /* Before 1.4 an entry point lists its inputs alone, and this one would have to leave the list. */
    if (n < 6 || words[0] != 0x07230203 || words[1] < 0x10400 || !is_whole(words, n) || !look(words, n, &f))
        return NULL;
    uint32_t *out = malloc((n + ADDED) * sizeof *out), id = words[3];
    if (!out)
        return NULL;
    size_t at = 5;
    memcpy(out, words, 5 * sizeof *out);
    for (size_t i = 5; i < n; i += count_of(words[i])) {
        const uint32_t *op = words + i, code = op[0] & 0xffff, size = count_of(op[0]);
        if (f.variable && code == OP_DECORATE && size == 4 && op[1] == f.variable)
            continue;
        if (f.variable && i == f.at) {
            declare(out, &at, &f, id);
            continue;
        }
        memcpy(out + at, op, size * sizeof *op);
        if (f.variable && (code == OP_ACCESS_CHAIN || code == OP_IN_BOUNDS_ACCESS_CHAIN) && size > 3 && op[3] == f.variable)
            out[at + 1] = id + 1;
        at += size;
    }
    if (f.variable)
        out[3] = id + 4;
    *n_out = at;
    return out;
}
