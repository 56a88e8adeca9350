/* mosld/ops/op.c - launching a variant. */
#include "mosld/ops/op.h"

#include "mosld/ops/choice.h"
#include "runtime/trace.h"

#include <stdlib.h>

bool op_can_run(const struct rt_device *dev, const struct op_variant *v)
{
    if (v->kind != rt_device_kind(dev) || (v->needs && !v->needs(rt_device_info(dev))))
        return false;
    for (int k = 0; k < OP_MAX_KERNELS && v->kernels[k]; k++)
        if (!rt_kernel_supported(dev, &v->kernels[k]->kernel))
            return false;
    return true;
}

bool op_would_take(const struct rt_device *dev, const struct op_variant *v)
{
    return op_can_run(dev, v) && (!v->suits || v->suits(rt_device_info(dev)));
}

double op_bytes(const struct op *op, const struct rt_span *spans, const void *push)
{
    if (op->bytes)
        return op->bytes(push);
    double bytes = 0;
    for (uint32_t i = 0; i < op->n_bindings; i++)
        bytes += (double)spans[i].size * (op->bindings[i].access == RT_READ_WRITE ? 2 : 1);
    return bytes;
}

static enum rt_status launch_host(struct rt_device *dev, const struct op *op, const struct op_variant *variant,
                                  const struct rt_span *spans, const void *push)
{
    void *pointers[OP_MAX_BINDINGS];
    for (uint32_t i = 0; i < op->n_bindings; i++)
        pointers[i] = rt_host_ptr(spans[i]);
    variant->host(dev, pointers, push);
    return RT_OK;
}

static enum rt_status launch_kernels(struct rt_device *dev, const struct op *op, const struct op_variant *variant,
                                     const struct rt_span *spans, const void *push, struct rt_error *err)
{
    double flops = op->flops ? op->flops(push) : 0, left = 1;
    int even = 0;
    for (int k = 0; k < OP_MAX_KERNELS && variant->kernels[k]; k++) {
        left -= variant->kernels[k]->share;
        even += variant->kernels[k]->share == 0;
    }
    for (int k = 0; k < OP_MAX_KERNELS && variant->kernels[k]; k++) {
        const struct op_kernel *kernel = variant->kernels[k];
        struct rt_span bound[RT_MAX_BINDINGS];
        for (uint32_t i = 0; i < kernel->kernel.n_bindings; i++)
            bound[i] = spans[kernel->map[i]];
        uint32_t groups[3] = {1, 1, 1};
        kernel->grid(push, groups);
        enum rt_status st = rt_dispatch(dev, &kernel->kernel, bound, push, groups, flops * (kernel->share > 0 ? kernel->share : left / even), err);
        if (st)
            return st;
    }
    return RT_OK;
}

enum rt_status op_launch_variant(struct rt_device *dev, const struct op *op, const struct op_variant *variant,
                                 const struct rt_span *spans, const void *push, struct rt_error *err)
{
    if (op_choice_is_planted(dev, op, variant))
        return RT_OK; /* a fault for tests: the variant writes nothing */
    unsigned scope = rt_scope_begin(dev, op->name, -1);
    if (rt_scope_seen(dev))
        rt_scope_work(dev, variant->name, op->flops ? op->flops(push) : 0, op_bytes(op, spans, push));
    enum rt_status st = variant->kind == RT_HOST ? launch_host(dev, op, variant, spans, push)
                                                 : launch_kernels(dev, op, variant, spans, push, err);
    rt_scope_end(dev, scope);
    return st;
}

enum rt_status op_launch(struct rt_device *dev, const struct op *op, const struct rt_span *spans, const void *push,
                         struct rt_error *err)
{
    const struct op_variant *variant = op_choose(dev, op, push);
    if (!variant)
        return rt_fail(err, RT_NO_DEVICE, "%s cannot run %s: no variant of it fits the device's limits", rt_device_info(dev)->name,
                       op->name);
    return op_launch_variant(dev, op, variant, spans, push, err);
}

/* The kernels of what the device takes in a class: the first of its order, and what pays behind it, until one is for all parameters.
 * Appended to `list`; NULL to count them. */
static size_t kernels_of(struct rt_device *dev, const struct op *op, uint32_t class_, uint32_t wtypes, const struct rt_kernel **list)
{
    const struct op_variant *order[OP_MAX_VARIANTS];
    uint32_t n = op_choice_order(dev, op, class_, order);
    int wtype = op_class_wtype(op, class_);
    size_t count = 0;
    if (wtype >= 0 && !(wtypes >> wtype & 1))
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct op_variant *v = order[i];
        if ((v->wtypes && !(v->wtypes & wtypes)) || (i > 0 && !op_would_take(dev, v)))
            continue;
        for (int k = 0; k < OP_MAX_KERNELS && v->kernels[k]; k++, count++)
            if (list)
                list[count] = &v->kernels[k]->kernel;
        if (!v->applies)
            break;
    }
    return count;
}

enum rt_status op_prepare(struct rt_device *dev, uint32_t wtypes, struct rt_error *err)
{
    if (rt_device_kind(dev) == RT_HOST)
        return RT_OK;
    size_t count = 0, at = 0;
    for (const struct op *const *op = op_table; *op; op++)
        for (uint32_t c = 0; c < op_class_count(*op); c++)
            count += kernels_of(dev, *op, c, wtypes, NULL);
    const struct rt_kernel **list = calloc(count + 1, sizeof *list);
    if (!list)
        return rt_fail(err, RT_NO_MEMORY, "no memory for the list of kernels");
    for (const struct op *const *op = op_table; *op; op++)
        for (uint32_t c = 0; c < op_class_count(*op); c++)
            at += kernels_of(dev, *op, c, wtypes, list + at);
    enum rt_status st = rt_kernels_prepare(dev, list, count, err);
    free(list);
    return st;
}
