/* mosld/tune/content.c - random content for the bindings of a case. See cases.h. */
#include "mosld/tune/cases.h"

#include "mosld/ops/weight_layout.h"

#include <stdlib.h>
#include <string.h>

static uint64_t draw(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static float uniform(uint64_t *state, float lo, float hi) { return lo + (hi - lo) * (float)((double)(draw(state) >> 40) / (1 << 24)); }

static void draw_floats(uint64_t *state, const struct tune_binding *b, float *f)
{
    bool unit = b->lo == 0 && b->hi == 0;
    for (uint64_t i = 0; i < b->n; i++)
        f[i] = uniform(state, unit ? -1 : b->lo, unit ? 1 : b->hi);
}

/* The packed layout itself is drawn, which is one for every type: words of any bits are quants, but scales have to be sane numbers. */
static bool make_weight(const struct tune_binding *b, uint64_t *state, bool with_ref, struct tune_content *out)
{
    out->bytes = op_weight_bytes(b->wtype, b->rows, b->cols);
    out->device = calloc(1, out->bytes + 4);
    if (!out->device)
        return false;
    if (b->wtype == OP_W_F32) {
        draw_floats(state, b, out->device);
    } else {
        uint32_t *word = out->device;
        struct op_weight_layout layout;
        if (!op_weight_layout(b->wtype, b->rows, b->cols, &layout))
            return false;
        uint64_t n = out->bytes / 4, scales = b->wtype < OP_W_Q8_0 ? 0 : layout.scales;
        for (uint64_t i = 0; i < n; i++)
            word[i] = (uint32_t)draw(state);
        /* Halves between 2^-7 and 1 (f16, or bf16 a little below), of either sign: as values, and as scales small enough for sums. */
        for (uint64_t i = scales; i < n; i++) {
            uint32_t half = b->wtype == OP_W_BF16 ? 0x3c003c00u : b->wtype == OP_W_F16 ? 0x2c002c00u : 0x14001400u;
            uint32_t keep = b->wtype == OP_W_BF16 ? 0x81ff81ffu : 0x8fff8fffu;
            if (op_wtype_block(b->wtype) < 256 || (i - scales) % 5 == 0)
                word[i] = (word[i] & keep) | half;
            else if (b->wtype == OP_W_Q4_K || b->wtype == OP_W_Q5_K)
                word[i] &= 0x3f3f3f3fu; /* their scales have six bits */
        }
    }
    if (!with_ref)
        return true;
    float *values = malloc((b->n + 1) * sizeof *values);
    double *ref = malloc((b->n + 1) * sizeof *ref);
    out->ref = ref;
    if (values && ref) {
        op_weight_unpack(b->wtype, b->rows, b->cols, out->device, 0, b->rows, values);
        for (uint64_t i = 0; i < b->n; i++)
            ref[i] = values[i];
    }
    free(values);
    return values && ref;
}

bool tune_content_make(const struct tune_case *c, uint32_t i, bool with_ref, struct tune_content *out)
{
    const struct tune_binding *b = &c->b[i];
    uint64_t state = 1000 + i;
    *out = (struct tune_content){0};
    if (c->op->bindings[i].data == OP_WEIGHT)
        return make_weight(b, &state, with_ref, out);
    out->bytes = 4 * b->n;
    out->device = calloc(b->n + 1, 4);
    if (!out->device)
        return false;
    if (c->op->bindings[i].data == OP_U32) {
        if (b->words)
            memcpy(out->device, b->words, out->bytes);
        out->ref = with_ref ? calloc(b->n + 1, 4) : NULL;
        if (out->ref)
            memcpy(out->ref, out->device, out->bytes);
        return !with_ref || out->ref;
    }
    float *f = out->device;
    draw_floats(&state, b, f);
    double *ref = with_ref ? malloc((b->n + 1) * sizeof *ref) : NULL;
    out->ref = ref;
    for (uint64_t j = 0; ref && j < b->n; j++)
        ref[j] = f[j];
    return !with_ref || ref;
}

void tune_content_finish(struct tune_content *content)
{
    free(content->device);
    free(content->ref);
    *content = (struct tune_content){0};
}
