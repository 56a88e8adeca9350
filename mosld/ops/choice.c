/* mosld/ops/choice.c - see choice.h. */
#include "mosld/ops/choice.h"

#include "mosld/ops/weight.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct order {
    uint8_t n, index[OP_MAX_VARIANTS];
    bool taken[OP_MAX_VARIANTS]; /* by index: since the device was opened */
};

struct op_order {
    const struct op *op;
    struct order *classes; /* [op_class_count] */
};

struct choice {
    uint32_t n_ops;
    struct op_order *ops; /* in the order of op_table */
    char planted[128];    /* "op.variant"; empty: none */
    bool crashes;         /* the planted one, instead of being wrong */
};

/* ---- classes ---- */

static uint32_t shape_count(const struct op *op)
{
    uint32_t n = 0;
    while (op->classes && op->classes->shape_of && op->classes->shapes[n])
        n++;
    return n ? n : 1;
}

uint32_t op_class_count(const struct op *op)
{
    return shape_count(op) * (op->classes && op->classes->wtype_of ? OP_W_TYPES : 1);
}

uint32_t op_class_of(const struct op *op, const void *push)
{
    const struct op_classes *c = op->classes;
    if (!c)
        return 0;
    return (c->wtype_of ? c->wtype_of(push) : 0) * shape_count(op) + (c->shape_of ? c->shape_of(push) : 0);
}

int op_class_wtype(const struct op *op, uint32_t class_)
{
    return op->classes && op->classes->wtype_of ? (int)(class_ / shape_count(op)) : -1;
}

void op_class_name(const struct op *op, uint32_t class_, char *text, size_t size)
{
    const struct op_classes *c = op->classes;
    const char *type = c && c->wtype_of ? op_wtype_name((enum op_wtype)op_class_wtype(op, class_)) : "";
    const char *shape = c && c->shape_of ? c->shapes[class_ % shape_count(op)] : "";
    snprintf(text, size, "%s%s%s", type, *type && *shape ? " " : "", *type || *shape ? shape : "all");
}

int op_class_find(const struct op *op, const char *name)
{
    char text[64];
    for (uint32_t c = 0; c < op_class_count(op); c++) {
        op_class_name(op, c, text, sizeof text);
        if (strcmp(text, name) == 0)
            return (int)c;
    }
    return -1;
}

const struct op_variant *op_variant_find(const struct op *op, const char *name)
{
    for (uint32_t i = 0; i < op->n_variants; i++)
        if (strcmp(op->variants[i].name, name) == 0)
            return &op->variants[i];
    return NULL;
}

const struct op *op_find(const char *name)
{
    for (const struct op *const *op = op_table; *op; op++)
        if (strcmp((*op)->name, name) == 0)
            return *op;
    return NULL;
}

/* ---- the orders of a device ---- */

static bool of_class(const struct op *op, uint32_t class_, const struct op_variant *v)
{
    int wtype = op_class_wtype(op, class_);
    return v->wtypes == 0 || wtype < 0 || v->wtypes >> wtype & 1;
}

/* First what pays, in the order of the table; behind it what could stand in. */
static void fill(const struct rt_device *dev, const struct op_order *o)
{
    for (uint32_t c = 0; c < op_class_count(o->op); c++) {
        struct order *order = &o->classes[c];
        order->n = 0;
        for (int pays = 1; pays >= 0; pays--)
            for (uint32_t i = 0; i < o->op->n_variants && i < OP_MAX_VARIANTS; i++) {
                const struct op_variant *v = &o->op->variants[i];
                if (of_class(o->op, c, v) && op_can_run(dev, v) && op_would_take(dev, v) == (bool)pays)
                    order->index[order->n++] = (uint8_t)i;
            }
    }
}

static void destroy(void *object)
{
    struct choice *choice = object;
    for (uint32_t i = 0; i < choice->n_ops; i++)
        free(choice->ops[i].classes);
    free(choice->ops);
    free(choice);
}

static void read_fault(struct choice *choice)
{
    static const char wrong[] = "wrong-variant@", crash[] = "crash-variant@";
    const char *fault = getenv("MOSLD_FAULT");
    choice->crashes = fault && strncmp(fault, crash, sizeof crash - 1) == 0;
    if (choice->crashes || (fault && strncmp(fault, wrong, sizeof wrong - 1) == 0))
        snprintf(choice->planted, sizeof choice->planted, "%s", strchr(fault, '@') + 1);
}

/* Made at the first need; NULL when there is no memory: then the tables rule. */
static struct choice *choice_of(struct rt_device *dev)
{
    struct choice *choice = rt_device_attached(dev);
    if (choice)
        return choice;
    uint32_t n = 0;
    while (op_table[n])
        n++;
    choice = calloc(1, sizeof *choice);
    struct op_order *ops = calloc(n, sizeof *ops);
    if (!choice || !ops) {
        free(choice);
        free(ops);
        return NULL;
    }
    choice->ops = ops;
    for (uint32_t i = 0; i < n; i++) {
        ops[i].op = op_table[i];
        ops[i].classes = calloc(op_class_count(op_table[i]), sizeof *ops[i].classes);
        choice->n_ops++;
        if (!ops[i].classes) {
            destroy(choice);
            return NULL;
        }
        fill(dev, &ops[i]);
    }
    read_fault(choice);
    rt_device_attach(dev, choice, destroy);
    return choice;
}

static struct op_order *order_of(struct rt_device *dev, const struct op *op)
{
    struct choice *choice = choice_of(dev);
    for (uint32_t i = 0; choice && i < choice->n_ops; i++)
        if (choice->ops[i].op == op)
            return &choice->ops[i];
    return NULL;
}

bool op_choice_is_planted(struct rt_device *dev, const struct op *op, const struct op_variant *variant)
{
    const struct choice *choice = choice_of(dev);
    size_t n = strlen(op->name);
    bool planted = choice && choice->planted[0] && strncmp(choice->planted, op->name, n) == 0 && choice->planted[n] == '.' &&
                   strcmp(choice->planted + n + 1, variant->name) == 0;
    if (planted && choice->crashes)
        raise(SIGKILL); /* not abort: no debugger and no sanitizer shall take notice */
    return planted;
}

const struct op_variant *op_choose(struct rt_device *dev, const struct op *op, const void *push)
{
    struct op_order *o = order_of(dev, op);
    if (!o) { /* an op of somebody's own */
        for (uint32_t i = 0; i < op->n_variants; i++) {
            const struct op_variant *v = &op->variants[i];
            if ((!v->applies || v->applies(push)) && op_would_take(dev, v))
                return v;
        }
        return NULL;
    }
    struct order *order = &o->classes[op_class_of(op, push)];
    for (uint32_t i = 0; i < order->n; i++) {
        const struct op_variant *v = &op->variants[order->index[i]];
        if (!v->applies || v->applies(push)) {
            order->taken[order->index[i]] = true;
            return v;
        }
    }
    return NULL;
}

uint32_t op_choice_taken(struct rt_device *dev, const struct op *op, uint32_t class_, const struct op_variant **out)
{
    const struct op_order *o = order_of(dev, op);
    uint32_t n = 0;
    for (uint32_t i = 0; o && i < op->n_variants && i < OP_MAX_VARIANTS; i++)
        if (o->classes[class_].taken[i])
            out[n++] = &op->variants[i];
    return n;
}

uint32_t op_choice_order(struct rt_device *dev, const struct op *op, uint32_t class_, const struct op_variant **out)
{
    const struct op_order *o = order_of(dev, op);
    uint32_t n = o ? o->classes[class_].n : 0;
    for (uint32_t i = 0; i < n; i++)
        out[i] = &op->variants[o->classes[class_].index[i]];
    return n;
}

/* ---- changing them ---- */

void op_choice_reset(struct rt_device *dev)
{
    struct choice *choice = choice_of(dev);
    for (uint32_t i = 0; choice && i < choice->n_ops; i++)
        fill(dev, &choice->ops[i]);
}

static void drop(struct order *order, uint8_t index)
{
    uint8_t kept = 0;
    for (uint8_t i = 0; i < order->n; i++)
        if (order->index[i] != index)
            order->index[kept++] = order->index[i];
    order->n = kept;
}

void op_choice_prefer(struct rt_device *dev, const struct op *op, uint32_t class_, const struct op_variant *variant)
{
    struct op_order *o = order_of(dev, op);
    if (!o || class_ >= op_class_count(op) || !of_class(op, class_, variant) || !op_can_run(dev, variant))
        return;
    struct order *order = &o->classes[class_];
    uint8_t index = (uint8_t)(variant - op->variants);
    drop(order, index);
    memmove(order->index + 1, order->index, order->n);
    order->index[0] = index;
    order->n++;
}

bool op_choice_ban(struct rt_device *dev, const struct op *op, const struct op_variant *variant)
{
    struct op_order *o = order_of(dev, op);
    uint8_t index = (uint8_t)(variant - op->variants);
    bool banned = o != NULL;
    for (uint32_t c = 0; o && c < op_class_count(op); c++) {
        struct order *order = &o->classes[c];
        if (order->n == 1 && order->index[0] == index && !op->optional)
            banned = false; /* the only one there is */
        else
            drop(order, index);
    }
    return banned;
}

bool op_choice_set(struct rt_device *dev, const struct op *op, uint32_t class_, const struct op_variant *const *variants, uint32_t n)
{
    struct op_order *o = order_of(dev, op);
    struct order new = {0};
    for (uint32_t i = 0; o && i < n && new.n < OP_MAX_VARIANTS; i++) {
        uint8_t index = (uint8_t)(variants[i] - op->variants);
        if (op_can_run(dev, variants[i]) && !memchr(new.index, index, new.n))
            new.index[new.n++] = index;
    }
    if (!o || new.n == 0)
        return false;
    memcpy(new.taken, o->classes[class_].taken, sizeof new.taken);
    o->classes[class_] = new;
    return new.n == n;
}
