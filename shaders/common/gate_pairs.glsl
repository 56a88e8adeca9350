// shaders/common/gate_pairs.glsl - softmax, top k and renormalisation for as many pairs of token and module as a workgroup of 64
// invocations has room for.
//
// Pair i is module i % modules of token i / modules. A pair's logits lie in `lanes` invocations, the number of experts rounded up to a
// power of two, so that no pair is cut by the workgroup's end; its place in the workgroup is its slot. z of pair i begins at word
// i experts r. The caller's push block p is gate_push, its buffer `ul`.

shared float gate_l[64];
shared float gate_ex[64]; // e^(l - max)
shared float gate_g[64];  // the gate, once gate_decide is done
shared float gate_p[64];  // softmax before the top k

uint gate_lanes()
{
    uint lanes = 1u;
    while (lanes < p.experts)
        lanes *= 2u;
    return lanes;
}

// Word of ul where the columns of a pair begin that stand at u_col or l_col in those of module 0.
uint gate_word(uint pair, uint col)
{
    uint t = pair / p.modules;
    return t * p.ul_stride + (pair - t * p.modules) * p.module_cols + col;
}

// The decisions of the pairs from `first` on, one a slot, up to `pairs`. What the workgroup did with the arrays before must be
// behind a barrier. Ends with one.
void gate_decide(uint tid, uint lanes, uint first, uint pairs)
{
    uint slot = tid / lanes, e = tid % lanes, from = slot * lanes;
    bool mine = e < p.experts && first + slot < pairs;
    float logit = mine ? ul[gate_word(first + slot, p.l_col) + e] : 0.0;
    gate_l[tid] = logit;
    barrier();
    float ex = 0.0;
    if (mine) {
        float top = gate_l[from];
        uint before = 0u;
        for (uint j = 0u; j < p.experts; j++) {
            float other = gate_l[from + j];
            top = max(top, other);
            before += other > logit || (other == logit && j < e) ? 1u : 0u;
        }
        ex = exp(logit - top);
        gate_ex[tid] = ex;
        gate_g[tid] = before < p.top_k ? ex : 0.0;
    }
    barrier();
    float all = 0.0, kept = 0.0;
    for (uint j = 0u; mine && j < p.experts; j++) {
        all += gate_ex[from + j];
        kept += gate_g[from + j];
    }
    float g = mine ? gate_g[tid] / kept : 0.0;
    barrier();
    if (mine) {
        gate_p[tid] = ex / all;
        gate_g[tid] = g;
    }
    barrier();
}
