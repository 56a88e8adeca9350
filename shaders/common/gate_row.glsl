// shaders/common/gate_row.glsl - softmax, top k and renormalisation of one token's logits by a workgroup of at least 64
// invocations.
//
// The caller's push block p has `experts` and `top_k`; invocation e has logit e.

shared float gate_l[64];
shared float gate_ex[64]; // e^(l - max)
shared float gate_g[64];  // the gate, once gate_decide is done
shared float gate_p[64];  // softmax before the top k

// What the workgroup did with the arrays before must be behind a barrier. Ends with one.
void gate_decide(uint e, float logit)
{
    bool mine = e < p.experts;
    if (mine)
        gate_l[e] = logit;
    barrier();
    float ex = 0.0;
    if (mine) {
        float top = gate_l[0];
        uint before = 0u;
        for (uint j = 0u; j < p.experts; j++) {
            float other = gate_l[j];
            top = max(top, other);
            before += other > logit || (other == logit && j < e) ? 1u : 0u;
        }
        ex = exp(logit - top);
        gate_ex[e] = ex;
        gate_g[e] = before < p.top_k ? ex : 0.0;
    }
    barrier();
    float all = 0.0, kept = 0.0;
    for (uint j = 0u; mine && j < p.experts; j++) {
        all += gate_ex[j];
        kept += gate_g[j];
    }
    float g = mine ? gate_g[e] / kept : 0.0;
    barrier();
    if (mine) {
        gate_p[e] = ex / all;
        gate_g[e] = g;
    }
    barrier();
}
