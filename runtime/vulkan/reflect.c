/* runtime/vulkan/reflect.c - see reflect.h. Numbers are those of the SPIR-V specification, named here because the headers
 * that name them are a package of their own. */
#include "runtime/vulkan/reflect.h"

#include <stdlib.h>
#include <string.h>

enum {
    OP_EXECUTION_MODE = 16, OP_CAPABILITY = 17, OP_TYPE_BOOL = 20, OP_TYPE_INT = 21, OP_TYPE_FLOAT = 22, OP_TYPE_VECTOR = 23,
    OP_TYPE_MATRIX = 24, OP_TYPE_ARRAY = 28, OP_TYPE_STRUCT = 30, OP_TYPE_POINTER = 32,
    OP_CONSTANT_TRUE = 41, OP_CONSTANT = 43, OP_CONSTANT_COMPOSITE = 44, OP_SPEC_CONSTANT = 50, OP_SPEC_CONSTANT_COMPOSITE = 51,
    OP_SPEC_CONSTANT_OP = 52,
    OP_FUNCTION_CALL = 57, OP_VARIABLE = 59, OP_LOAD = 61, OP_STORE = 62, OP_COPY_MEMORY = 63, OP_ACCESS_CHAIN = 65, OP_IN_BOUNDS_ACCESS_CHAIN = 66,
    OP_ARRAY_LENGTH = 68, OP_DECORATE = 71, OP_MEMBER_DECORATE = 72, OP_COPY_OBJECT = 83, OP_ATOMIC_FIRST = 227, OP_ATOMIC_STORE = 228, OP_ATOMIC_LAST = 242,
    OP_EXECUTION_MODE_ID = 331,
    /* what constants are computed by */
    OP_I_ADD = 128, OP_I_SUB = 130, OP_I_MUL = 132, OP_U_DIV = 134, OP_U_MOD = 137, OP_SELECT = 169, OP_I_EQUAL = 170, OP_I_NOT_EQUAL = 171,
    OP_U_GREATER_THAN = 172, OP_U_GREATER_THAN_EQUAL = 174, OP_U_LESS_THAN = 176, OP_U_LESS_THAN_EQUAL = 178, OP_BITWISE_AND = 199,
    OP_COOPERATIVE_MATRIX_LOAD = 4457, OP_COOPERATIVE_MATRIX_STORE = 4458,
    MODE_LOCAL_SIZE = 17, MODE_LOCAL_SIZE_ID = 38,
    DECORATION_SPEC_ID = 1, DECORATION_BUILTIN = 11, DECORATION_BINDING = 33, DECORATION_SET = 34, DECORATION_OFFSET = 35, BUILTIN_WORKGROUP_SIZE = 25,
    CLASS_UNIFORM = 2, CLASS_WORKGROUP = 4, CLASS_PUSH_CONSTANT = 9, CLASS_STORAGE_BUFFER = 12,
};

static const struct {
    uint32_t number;
    uint32_t caps, subgroup_ops;
    bool int16;
} capabilities[] = {
    {0, 0, 0, false},                                /* Matrix */
    {1, 0, 0, false},                                /* Shader */
    {9, RT_CAP_FP16_ARITHMETIC, 0, false},           /* Float16 */
    {22, 0, 0, true},                                /* Int16 */
    {39, RT_CAP_INT8_STORAGE, 0, false},             /* Int8 */
    {61, RT_CAP_SUBGROUP, 1, false},                 /* GroupNonUniform */
    {62, RT_CAP_SUBGROUP, 2, false},                 /* ... Vote */
    {63, RT_CAP_SUBGROUP, 4, false},                 /* ... Arithmetic */
    {64, RT_CAP_SUBGROUP, 8, false},                 /* ... Ballot */
    {65, RT_CAP_SUBGROUP, 16, false},                /* ... Shuffle */
    {66, RT_CAP_SUBGROUP, 32, false},                /* ... ShuffleRelative */
    {67, RT_CAP_SUBGROUP, 64, false},                /* ... Clustered */
    {68, RT_CAP_SUBGROUP, 128, false},               /* ... Quad */
    {4433, RT_CAP_FP16_STORAGE, 0, false},           /* StorageBuffer16BitAccess */
    {4434, RT_CAP_FP16_STORAGE, 0, false},           /* UniformAndStorageBuffer16BitAccess */
    {4448, RT_CAP_INT8_STORAGE, 0, false},           /* StorageBuffer8BitAccess */
    {4449, RT_CAP_INT8_STORAGE, 0, false},           /* UniformAndStorageBuffer8BitAccess */
    {5345, RT_CAP_COOPERATIVE_MATRIX, 0, false},     /* VulkanMemoryModel: enabled with them alone */
    {5347, RT_CAP_BUFFER_ADDRESS, 0, false},         /* PhysicalStorageBufferAddresses */
    {6016, RT_CAP_INTEGER_DOT, 0, false},            /* DotProductInputAll */
    {6017, RT_CAP_INTEGER_DOT, 0, false},            /* DotProductInput4x8Bit */
    {6018, RT_CAP_INTEGER_DOT, 0, false},            /* DotProductInput4x8BitPacked */
    {6019, RT_CAP_INTEGER_DOT, 0, false},            /* DotProduct */
    {6022, RT_CAP_COOPERATIVE_MATRIX, 0, false},     /* CooperativeMatrixKHR */
};

#define MAX_BOUND 0x3fffffu /* ids that a module may use (universal limits of the specification) */

/* What is known of an id. */
struct id {
    const uint32_t *op;   /* the instruction that defines it, of types and constants */
    uint32_t size;        /* bytes of a type; value of a constant that is computed */
    uint32_t binding;     /* of a variable, plus 1 */
    uint32_t set;
    uint32_t root;        /* of a pointer: the variable that it points into */
    uint32_t class_;      /* of a variable */
};

struct reader {
    struct id *ids;
    uint32_t bound;
    struct reflection *out;
    uint32_t workgroup_size; /* id of the constant decorated so; 0: none */
};

static uint32_t count_of(const uint32_t *op) { return op[0] >> 16; }

static struct id *at(struct reader *r, uint32_t id) { return &r->ids[id < r->bound ? id : 0]; }

static uint32_t times(uint32_t a, uint32_t b)
{
    uint32_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT32_MAX : product;
}

static uint32_t plus(uint32_t a, uint32_t b)
{
    uint32_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT32_MAX : sum;
}

/* What sizes of arrays are computed with, from constants at the values that the module was made with. */
static uint32_t computed(uint32_t code, uint32_t a, uint32_t b, uint32_t c)
{
    switch (code) {
    case OP_I_ADD: return plus(a, b);
    case OP_I_SUB: return a - b;
    case OP_I_MUL: return times(a, b);
    case OP_U_DIV: return b ? a / b : 0;
    case OP_U_MOD: return b ? a % b : 0;
    case OP_SELECT: return a ? b : c;
    case OP_I_EQUAL: return a == b;
    case OP_I_NOT_EQUAL: return a != b;
    case OP_U_GREATER_THAN: return a > b;
    case OP_U_GREATER_THAN_EQUAL: return a >= b;
    case OP_U_LESS_THAN: return a < b;
    case OP_U_LESS_THAN_EQUAL: return a <= b;
    case OP_BITWISE_AND: return a & b;
    default: return 0;
    }
}

static uint32_t constant(struct reader *r, uint32_t id)
{
    const struct id *i = at(r, id);
    const uint32_t *op = i->op;
    uint32_t code = op ? op[0] & 0xffff : 0;
    if (op && (code == OP_CONSTANT || code == OP_SPEC_CONSTANT) && count_of(op) >= 4)
        return op[3];
    return code == OP_CONSTANT_TRUE || code == OP_SPEC_CONSTANT_OP ? i->size : 0;
}

/* Once, where it stands: what it is computed from stands before it. */
static void read_computed(struct reader *r, const uint32_t *op, uint32_t n)
{
    uint32_t v[3] = {0};
    for (uint32_t i = 0; i < 3 && 4 + i < n; i++)
        v[i] = constant(r, op[4 + i]);
    at(r, op[2])->op = op;
    at(r, op[2])->size = computed(op[3], v[0], v[1], v[2]);
}

/* ---- declarations ---- */

static void read_capability(struct reflection *out, uint32_t number)
{
    for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++)
        if (capabilities[i].number == number) {
            out->caps |= capabilities[i].caps;
            out->subgroup_ops |= capabilities[i].subgroup_ops;
            out->int16 |= capabilities[i].int16;
            return;
        }
    out->unknown_capability = number;
}

static void read_execution_mode(struct reader *r, const uint32_t *op, uint32_t n)
{
    if (n < 6 || (op[2] != MODE_LOCAL_SIZE && op[2] != MODE_LOCAL_SIZE_ID))
        return;
    for (int i = 0; i < 3; i++) /* an id stands for a constant that comes later: resolved at the end */
        r->out->local_size[i] = op[3 + i];
    if (op[2] == MODE_LOCAL_SIZE_ID)
        r->workgroup_size = UINT32_MAX;
}

static void read_decoration(struct reader *r, const uint32_t *op, uint32_t n)
{
    if (n < 4)
        return;
    if (op[2] == DECORATION_BINDING)
        at(r, op[1])->binding = op[3] == UINT32_MAX ? UINT32_MAX : op[3] + 1;
    else if (op[2] == DECORATION_SET)
        at(r, op[1])->set = op[3];
    else if (op[2] == DECORATION_BUILTIN && op[3] == BUILTIN_WORKGROUP_SIZE)
        r->workgroup_size = op[1];
}

/* Sizes are those of tight packing, which is how shared memory is counted; a struct with explicit offsets (a push block) ends
 * where its last member ends, which member decorations, read before the types, have left in `size`. */
static void read_type(struct reader *r, const uint32_t *op, uint32_t n)
{
    struct id *type = at(r, op[1]);
    uint32_t size = 0;
    switch (op[0] & 0xffff) {
    case OP_TYPE_BOOL: size = 4; break;
    case OP_TYPE_INT:
    case OP_TYPE_FLOAT: size = n > 2 ? op[2] / 8 : 0; break;
    case OP_TYPE_VECTOR:
    case OP_TYPE_MATRIX: size = n > 3 ? times(at(r, op[2])->size, op[3]) : 0; break;
    case OP_TYPE_ARRAY: size = n > 3 ? times(at(r, op[2])->size, constant(r, op[3])) : 0; break;
    case OP_TYPE_STRUCT:
        for (uint32_t i = 2; i < n; i++)
            size = plus(size, at(r, op[i])->size);
        if (type->size && n > 2) /* the largest member offset; members stand in the order of their offsets */
            size = plus(type->size, at(r, op[n - 1])->size);
        break;
    }
    type->op = op;
    type->size = size;
}

static void read_variable(struct reader *r, const uint32_t *op, uint32_t n)
{
    if (n < 4)
        return;
    struct id *var = at(r, op[2]);
    const uint32_t *pointer = at(r, op[1])->op;
    uint32_t size = pointer && (pointer[0] & 0xffff) == OP_TYPE_POINTER && count_of(pointer) > 3 ? at(r, pointer[3])->size : 0;
    var->class_ = op[3];
    if (op[3] == CLASS_WORKGROUP)
        r->out->shared_bytes = plus(r->out->shared_bytes, size);
    if (op[3] == CLASS_PUSH_CONSTANT && size > r->out->push_bytes)
        r->out->push_bytes = size;
    if (!var->binding)
        return;
    var->root = op[2];
    if (var->set != 0 || var->binding > 32 || (op[3] != CLASS_STORAGE_BUFFER && op[3] != CLASS_UNIFORM))
        r->out->other_sets = true;
    else if (var->binding > r->out->n_bindings)
        r->out->n_bindings = var->binding;
}

/* ---- code ---- */

static void touch(struct reader *r, uint32_t pointer, unsigned access)
{
    uint32_t root = at(r, pointer)->root;
    uint32_t binding = root ? at(r, root)->binding : 0;
    if (binding >= 1 && binding <= 32)
        r->out->access[binding - 1] |= (uint8_t)access;
}

static void read_code(struct reader *r, const uint32_t *op, uint32_t n)
{
    uint32_t code = op[0] & 0xffff;
    if (code == OP_LOAD && n > 3) {
        touch(r, op[3], RT_READ);
    } else if (code == OP_STORE && n > 2) {
        touch(r, op[1], RT_WRITE);
    } else if (code == OP_COPY_MEMORY && n > 2) {
        touch(r, op[1], RT_WRITE);
        touch(r, op[2], RT_READ);
    } else if ((code == OP_ACCESS_CHAIN || code == OP_IN_BOUNDS_ACCESS_CHAIN || code == OP_COPY_OBJECT) && n > 3) {
        at(r, op[2])->root = at(r, op[3])->root;
    } else if (code == OP_COOPERATIVE_MATRIX_LOAD && n > 3) {
        touch(r, op[3], RT_READ);
    } else if (code == OP_COOPERATIVE_MATRIX_STORE && n > 2) {
        touch(r, op[1], RT_WRITE);
    } else if (code == OP_ATOMIC_STORE && n > 2) {
        touch(r, op[1], RT_WRITE);
    } else if (code >= OP_ATOMIC_FIRST && code <= OP_ATOMIC_LAST && n > 3) {
        touch(r, op[3], code == OP_ATOMIC_FIRST ? RT_READ : RT_READ_WRITE);
    } else if (code == OP_FUNCTION_CALL) { /* what it does with a pointer is not followed */
        for (uint32_t i = 4; i < n; i++)
            touch(r, op[i], RT_READ_WRITE);
    }
}

static void read_instruction(struct reader *r, const uint32_t *op, uint32_t n)
{
    uint32_t code = op[0] & 0xffff;
    if (code == OP_CAPABILITY && n > 1) {
        read_capability(r->out, op[1]);
    } else if (code == OP_EXECUTION_MODE || code == OP_EXECUTION_MODE_ID) {
        read_execution_mode(r, op, n);
    } else if (code == OP_DECORATE) {
        read_decoration(r, op, n);
    } else if (code == OP_MEMBER_DECORATE && n > 4 && op[3] == DECORATION_OFFSET) {
        struct id *type = at(r, op[1]);
        if (op[4] > type->size)
            type->size = op[4];
    } else if (code >= OP_TYPE_BOOL && code <= OP_TYPE_POINTER && n > 1) {
        read_type(r, op, n);
    } else if ((code == OP_CONSTANT || code == OP_SPEC_CONSTANT || code == OP_CONSTANT_COMPOSITE ||
                code == OP_SPEC_CONSTANT_COMPOSITE) && n > 2) {
        at(r, op[2])->op = op;
    } else if (code == OP_CONSTANT_TRUE && n > 2) {
        at(r, op[2])->op = op;
        at(r, op[2])->size = 1;
    } else if (code == OP_SPEC_CONSTANT_OP && n > 4) {
        read_computed(r, op, n);
    } else if (code == OP_VARIABLE) {
        read_variable(r, op, n);
    } else {
        read_code(r, op, n);
    }
}

/* Workgroup sizes that are constants of the module, at their defaults. */
static void resolve_local_size(struct reader *r)
{
    uint32_t *size = r->out->local_size;
    if (r->workgroup_size == UINT32_MAX) {
        for (int i = 0; i < 3; i++)
            size[i] = constant(r, size[i]);
    } else if (r->workgroup_size) {
        const uint32_t *op = at(r, r->workgroup_size)->op;
        for (uint32_t i = 0; op && count_of(op) >= 6 && i < 3; i++)
            size[i] = constant(r, op[3 + i]);
    }
}

bool reflect_spirv(const uint32_t *words, size_t n_words, struct reflection *out)
{
    *out = (struct reflection){0};
    if (n_words < 5 || words[0] != 0x07230203 || words[3] == 0 || words[3] > MAX_BOUND)
        return false;
    struct reader r = {.bound = words[3], .out = out};
    r.ids = calloc(r.bound, sizeof *r.ids);
    if (!r.ids)
        return false;
    size_t i = 5;
    while (i < n_words) {
        uint32_t n = count_of(&words[i]);
        if (n == 0 || n > n_words - i)
            break;
        read_instruction(&r, &words[i], n);
        i += n;
    }
    resolve_local_size(&r);
    free(r.ids);
    if (i != n_words) {
        *out = (struct reflection){0};
        return false;
    }
    return true;
}

void reflect_set_constant(uint32_t *words, size_t n_words, uint32_t spec_id, uint32_t value)
{
    uint32_t id = 0;
    for (size_t i = 5; i < n_words;) { /* decorations stand before the constants */
        uint32_t n = count_of(&words[i]), code = words[i] & 0xffff;
        if (n == 0 || n > n_words - i)
            return;
        if (code == OP_DECORATE && n == 4 && words[i + 2] == DECORATION_SPEC_ID && words[i + 3] == spec_id)
            id = words[i + 1];
        else if (code == OP_SPEC_CONSTANT && n == 4 && id && words[i + 2] == id)
            words[i + 3] = value;
        i += n;
    }
}
