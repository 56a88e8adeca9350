/* shaders/common/matmul_tail.glsl - the tail of matmul_tile.comp: 16 of its sums on their way into the tiles. A tail is short, so that
 * what it tests for costs little. */

layout(std430, set = 0, binding = 4) readonly buffer ZBuffer { float z[]; };
layout(std430, set = 0, binding = 5) readonly buffer BBuffer { float b[]; };
layout(std430, set = 0, binding = 4) readonly buffer ZBuffer4 { vec4 z4[]; };
layout(std430, set = 0, binding = 5) readonly buffer BBuffer4 { vec4 b4[]; };

/* Four of z or B in a row, the first at `at`, of which `there` exist. */
vec4 tail_z(uint at, uint there, bool vectors)
{
    if (vectors)
        return there == 0 ? vec4(0.0) : z4[at / 4];
    vec4 v = vec4(0.0);
    [[unroll]] for (uint j = 0; j < 4; j++)
        v[j] = j < there ? z[at + j] : 0.0;
    return v;
}

vec4 tail_b(uint at, uint there, bool vectors)
{
    if (vectors)
        return there == 0 ? vec4(0.0) : b4[at / 4];
    vec4 v = vec4(0.0);
    [[unroll]] for (uint j = 0; j < 4; j++)
        v[j] = j < there ? b[at + j] : 0.0;
    return v;
}

uint tail_left(uint from, uint end) { return from < end ? min(end - from, 4) : 0; }

void load_tail(uint t0, uint c0, uint s0)
{
#ifdef NN
    bool vectors = ((p.z_stride | p.z_col | p.r | p.b_offset | p.k) & 3u) == 0u;
    uint s = gl_LocalInvocationID.x / 8, c = gl_LocalInvocationID.x % 8 * 2;
    [[unroll]] for (uint i = 0; i < 2; i++) {
        uint col = c0 + (c + i) * 4;
        ws[s][c + i] = tail_b(p.b_offset + (s0 + s) * p.k + col, s0 + s < p.r ? tail_left(col, p.k) : 0, vectors);
    }
#else
    bool vectors = ((p.z_stride | p.z_col | p.r | p.b_offset) & 3u) == 0u;
    uint c = gl_LocalInvocationID.x / 2, s = gl_LocalInvocationID.x % 2 * 8;
    [[unroll]] for (uint i = 0; i < 8; i += 4) {
        vec4 v = tail_b(p.b_offset + min(c0 + c, p.n - 1) * p.r + s0 + s + i, tail_left(s0 + s + i, p.r), vectors);
        [[unroll]] for (uint j = 0; j < 4; j++)
            ws[s + i + j][c / 4][c % 4] = v[j];
    }
#endif
    uint t = gl_LocalInvocationID.x / 4, d = gl_LocalInvocationID.x % 4 * 4;
    [[unroll]] for (uint i = 0; i < TOKENS; i += 32) {
        uint at = min(t0 + t + i, p.rows - 1) * p.z_stride + p.z_col + s0 + d;
        vec4 v = p.tail_scale * tail_z(at, tail_left(s0 + d, p.r), vectors);
        [[unroll]] for (uint j = 0; j < 4; j++)
            xs[d + j][(t + i) / 4][t % 4] = v[j];
    }
}
