/* mosld/ops/op.c - choosing a variant and launching it. */
#include "mosld/ops/op.h"

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

const struct op_variant *op_choose(struct rt_device *dev, const struct op *op, const void *push)
{
    for (uint32_t i = 0; i < op->n_variants; i++) {
        const struct op_variant *v = &op->variants[i];
        if ((!v->applies || v->applies(push)) && op_would_take(dev, v))
            return v;
    }
    return NULL;
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

enum rt_status op_launch_variant(struct rt_device *dev, const struct op *op, const struct op_variant *variant,
                                 const struct rt_span *spans, const void *push, struct rt_error *err)
{
    if (variant->kind == RT_HOST)
        return launch_host(dev, op, variant, spans, push);
    double flops = op->flops ? op->flops(push) : 0;
    for (int k = 0; k < OP_MAX_KERNELS && variant->kernels[k]; k++) {
        const struct op_kernel *kernel = variant->kernels[k];
        struct rt_span bound[RT_MAX_BINDINGS];
        for (uint32_t i = 0; i < kernel->kernel.n_bindings; i++)
            bound[i] = spans[kernel->map[i]];
        uint32_t groups[3] = {1, 1, 1};
        kernel->grid(push, groups);
        enum rt_status st = rt_dispatch(dev, &kernel->kernel, bound, push, groups, k == 0 ? flops : 0, err);
        if (st)
            return st;
    }
    return RT_OK;
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

enum rt_status op_prepare(struct rt_device *dev, uint32_t wtypes, struct rt_error *err)
{
    if (rt_device_kind(dev) == RT_HOST)
        return RT_OK;
    size_t count = 0, cap = 0;
    const struct rt_kernel **list = NULL;
    enum rt_status st = RT_OK;
    for (const struct op *const *op = op_table; *op; op++)
        for (uint32_t i = 0; i < (*op)->n_variants; i++) {
            const struct op_variant *v = &(*op)->variants[i];
            bool wanted = (v->wtypes == 0 || v->wtypes & wtypes) && op_would_take(dev, v);
            for (int k = 0; wanted && k < OP_MAX_KERNELS && v->kernels[k]; k++) {
                if (count == cap) {
                    cap = cap ? 2 * cap : 64;
                    const struct rt_kernel **grown = realloc(list, cap * sizeof *grown);
                    if (!grown) {
                        st = rt_fail(err, RT_NO_MEMORY, "no memory for the list of kernels");
                        goto done;
                    }
                    list = grown;
                }
                list[count++] = &v->kernels[k]->kernel;
            }
        }
    st = rt_kernels_prepare(dev, list, count, err);
done:
    free(list);
    return st;
}
