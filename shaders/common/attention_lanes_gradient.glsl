// What the two kernels of attention's gradient share on drivers that run on the processor: OWN rows of the lane and OTHER
// rows that lanes lend each other, one of them queries and the other keys; see attention_lanes.glsl.
#ifndef ATTENTION_LANES_GRADIENT_GLSL
#define ATTENTION_LANES_GRADIENT_GLSL

layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { float qkv[]; };
layout(set = 0, binding = 1, std430) readonly buffer d_o_buffer { float d_o[]; };
layout(set = 0, binding = 2, std430) readonly buffer stats_buffer { uint stats[]; };
layout(set = 0, binding = 3, std430) buffer dqkv_buffer { float dqkv[]; };

#define KEPT(i) 1.0 // what a sum shrinks by

uint stride, o_stride, stats_stride;

void set_strides()
{
    stride = (p.heads + 2 * p.kv_heads) * p.head_dim;
    o_stride = p.heads * p.head_dim;
    stats_stride = STATS_LSE + 2 * p.heads;
}

// What forward said about a token of a head.
struct query {
    seen_keys seen;
    float lse, delta;
};

query query_of(uint t, uint head, bool valid)
{
    uint at = t * stats_stride, to = at + STATS_LSE + head;
    seen_keys seen = seen_keys(t, stats[at], stats[at + 1], stats[at + 2]);
    if (!valid)
        seen = sees_nothing();
    return query(seen, uintBitsToFloat(stats[to]), uintBitsToFloat(stats[to + p.heads]));
}

// s, a score, becomes the weight p = exp(scale s - lse), and dp = <do, v> the gradient of s: p (dp - delta) scale.
void make_slope(query q, uint j, bool valid, inout float s, inout float dp)
{
    float w = valid && sees(q.seen, j) ? exp(min(s * p.scale - q.lse, 80)) : 0;
    s = w;
    dp = w * (dp - q.delta) * p.scale;
}

#endif
