/* mosld/ops/op.h - what an operation is, and how one is launched on either kind of device.
 *
 * An op is described once: its bindings, its parameters (a push block, shared with the shader through a header in shaders/),
 * its truth (`ref`, plain C in double), and a table of variants, best first. The first variant that applies to the parameters
 * and that the device can run is taken, unless choice.h was told of a better one. A host variant is a C function in float; a Vulkan variant is one to three kernels
 * in sequence. Barriers, timer labels and tests all derive from the descriptor.
 *
 * Conventions, everywhere in mosld/ops: matrices are row-major, tokens first; T is the number of tokens of the pass; a stride
 * counts elements (32-bit words) between rows, a col the first element used of each row. Every kernel binds at
 * most four storage buffers (those of an optional op: eight) and has at most 128 invocations, 16 KiB of shared memory and 128 bytes of push block: the
 * floor that Vulkan 1.2 guarantees. A dimension of a grid has at most 65,535 groups: kernels stride over the rest. No op uses
 * atomics on floating point or an order of summation that depends on timing. T or rows = 0 is valid and does nothing. */
#ifndef MOSLD_OP_H
#define MOSLD_OP_H

#include "runtime/rt.h"

#define OP_MAX_BINDINGS 8
#define OP_MAX_KERNELS 3

enum op_data {
    OP_F32,    /* float in device memory; double in the reference */
    OP_U32,    /* uint32_t in both */
    OP_WEIGHT, /* a frozen matrix in one of the layouts of weight.h; double, dequantised, [rows, cols], in the reference */
};

struct op_binding {
    const char *name;
    enum rt_access access;
    enum op_data data;
};

typedef void op_ref_fn(void *const *bindings, const void *push);
typedef void op_host_fn(struct rt_device *dev, void *const *bindings, const void *push);
typedef void op_grid_fn(const void *push, uint32_t groups[3]);

struct op_kernel {
    struct rt_kernel kernel; /* its bindings in the order of the shader */
    uint8_t map[RT_MAX_BINDINGS]; /* binding i of the kernel is binding map[i] of the op */
    op_grid_fn *grid;
    float share; /* of the op's flops; 0: kernels without one share what is left evenly */
};

struct op_variant {
    const char *name;
    enum rt_kind kind;
    bool (*applies)(const void *push); /* NULL: to every parameter */
    uint32_t wtypes; /* weight types it is for, 1 << enum op_wtype each; 0: it reads no frozen weight, or any type */
    bool (*needs)(const struct rt_device_info *info); /* where its results are right; NULL: wherever its kernels run */
    bool (*suits)(const struct rt_device_info *info); /* where it pays to take it; NULL: wherever it can run */
    double rounding; /* of its inputs, relative, beyond that of f32; 0: none. Tests allow for it. */
    op_host_fn *host;
    const struct op_kernel *kernels[OP_MAX_KERNELS]; /* NULL ends the list */
};

/* What the best variant may depend on beside the device: the type of the frozen weight and a class of shapes. Both together are
 * the parameters' class, as tuning files and checkpoints name it: "q4_1 many". */
struct op_classes {
    uint32_t (*wtype_of)(const void *push); /* enum op_wtype; NULL: it reads no frozen weight */
    uint32_t (*shape_of)(const void *push); /* index into `shapes`; NULL: all are one class */
    const char *const *shapes;              /* names, ended by NULL */
};

struct op {
    const char *name;
    uint32_t n_bindings;
    struct op_binding bindings[OP_MAX_BINDINGS];
    uint32_t push_size;
    op_ref_fn *ref;
    double (*flops)(const void *push); /* NULL: memory-bound, taken as nothing */
    const struct op_classes *classes;  /* NULL: the same variant is the best for all parameters that it applies to */
    double (*bytes)(const void *push); /* read and written once each, by the mathematics; NULL: all that is bound */
    bool optional; /* faster than other ops in sequence, which do the same where the device takes none of its variants */
    uint32_t n_variants;
    const struct op_variant *variants;
};

/* Whether the variant gives right results on the device, whether or not it pays there. For every `push` that it applies to. */
bool op_can_run(const struct rt_device *dev, const struct op_variant *variant);
/* Whether it also pays there, as far as the table knows. */
bool op_would_take(const struct rt_device *dev, const struct op_variant *variant);
/* The variant that the device takes: the first that applies in the order of choice.h; NULL when there is none. */
const struct op_variant *op_choose(struct rt_device *dev, const struct op *op, const void *push);

/* Runs the op (appends it to what the device is to do). `spans`: one a binding. */
enum rt_status op_launch(struct rt_device *dev, const struct op *op, const struct rt_span *spans, const void *push,
                         struct rt_error *err);
/* The same with a given variant, for tests and measurements. */
enum rt_status op_launch_variant(struct rt_device *dev, const struct op *op, const struct op_variant *variant,
                                 const struct rt_span *spans, const void *push, struct rt_error *err);

/* Every op of the engine, NULL-terminated (mosld/ops/table.c): tests walk it, and pipelines are built from it. */
extern const struct op *const op_table[];

/* Bytes that one call has to move: the op's own count, or the sum of the spans where it has none. */
double op_bytes(const struct op *op, const struct rt_span *spans, const void *push);

/* Builds the pipelines of the variants that the device would take, in parallel; of those for a weight type only where it is in `wtypes` (1 <<
 * enum op_wtype each). Others are built when they are first launched. Nothing on the host. */
enum rt_status op_prepare(struct rt_device *dev, uint32_t wtypes, struct rt_error *err);

/* Groups for `n` items at `per` a group, at most 65,535: the kernel strides over what is left. */
static inline uint32_t op_groups(uint64_t n, uint32_t per)
{
    uint64_t g = (n + per - 1) / per;
    return g > 65535 ? 65535 : (uint32_t)g;
}

#define OP_COUNT(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

#endif
