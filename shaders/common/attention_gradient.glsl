// What the two kernels of attention's gradient share: the weights p and their gradients of one tile of queries and
// keys.
#ifndef ATTENTION_GRADIENT_GLSL
#define ATTENTION_GRADIENT_GLSL

layout(set = 0, binding = 0, std430) readonly buffer qkv_buffer { float qkv[]; };
layout(set = 0, binding = 1, std430) readonly buffer d_o_buffer { float d_o[]; };
layout(set = 0, binding = 2, std430) readonly buffer stats_buffer { uint stats[]; };
layout(set = 0, binding = 3, std430) DQKV_ACCESS buffer dqkv_buffer { float dqkv[]; };

shared float row_lse[TILE], row_delta[TILE];

uint stride, o_stride, stats_stride;

void set_strides()
{
    stride = (p.heads + 2 * p.kv_heads) * p.head_dim;
    o_stride = p.heads * p.head_dim;
    stats_stride = STATS_LSE + 2 * p.heads;
}

// What forward said about query tokens t0 .. t0 + rows - 1 of a head, between barriers.
void begin_rows(uint head, uint t0, uint rows)
{
    uint r = gl_LocalInvocationIndex;
    barrier();
    if (r < TILE) {
        bool valid = r < rows;
        uint at = valid ? (t0 + r) * stats_stride : 0;
        set_seen(r, valid, stats[at], stats[at + 1], stats[at + 2]);
        row_lse[r] = uintBitsToFloat(stats[at + STATS_LSE + head]);
        row_delta[r] = uintBitsToFloat(stats[at + STATS_LSE + p.heads + head]);
    }
    barrier();
}

// weight = p = exp(scale q k^T - lse); slope = p (do v^T - delta) scale, the gradient of q k^T.
void tile_gradient(uint head, uint kv_head, uint t0, uint rows, uint j0, uint keys, out float weight[8],
                   out float slope[8])
{
    uint k_col = o_stride + kv_head * p.head_dim, v_col = k_col + p.kv_heads * p.head_dim;
    float s[8], dp[8];
    clear(s);
    clear(dp);
    for (uint c = 0; c < p.head_dim; c += TILE) {
        barrier();
        LOAD_TILE(a_tile, qkv, t0 * stride + head * p.head_dim + c, stride, rows, p.head_dim - c)
        LOAD_TILE(b_tile, qkv, j0 * stride + k_col + c, stride, keys, p.head_dim - c)
        barrier();
        add_a_bt(s);
        barrier();
        LOAD_TILE(a_tile, d_o, t0 * o_stride + head * p.head_dim + c, o_stride, rows, p.head_dim - c)
        LOAD_TILE(b_tile, qkv, j0 * stride + v_col + c, stride, keys, p.head_dim - c)
        barrier();
        add_a_bt(dp);
    }
    [[unroll]] for (uint i = 0; i < 8; i++) {
        uint r = row_of(i), j = col_of(i);
        bool seen = j < keys && sees(r, t0 + r, j0 + j);
        weight[i] = seen ? exp(min(s[i] * p.scale - row_lse[r], 80)) : 0;
        slope[i] = seen ? weight[i] * (dp[i] - row_delta[r]) * p.scale : 0;
    }
}

void set_s_tile(float values[8])
{
    [[unroll]] for (uint i = 0; i < 8; i++)
        s_tile[row_of(i) * PITCH + col_of(i)] = values[i];
}

#endif
