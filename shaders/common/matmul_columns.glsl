/* shaders/common/matmul_columns.glsl - 4 columns of 8 tokens by a workgroup of 64: the sums split over its invocations.
 *
 * Before including: common/matmul.glsl, COLUMN_4(c, k): sums k .. k + 3 of column c of W, 0 outside; STORE(t, c, sum). */

const uint LANES = 64, TOKENS = 8, COLUMNS = 4;

shared vec4 partial[TOKENS][LANES]; /* [token][invocation]: the 4 columns */

vec4 x_4_or_0(uint at, uint k)
{
    if (k + 4 <= p.k)
        return vec4(x[at + k], x[at + k + 1], x[at + k + 2], x[at + k + 3]);
    vec4 v = vec4(x[at + k], 0.0, 0.0, 0.0);
    for (uint i = 1; i < 3 && k + i < p.k; i++)
        v[i] = x[at + k + i];
    return v;
}

void make_columns(uint t0, uint c0)
{
    uint lane = gl_LocalInvocationID.x;
    vec4 sum[TOKENS];
    for (uint t = 0; t < TOKENS; t++)
        sum[t] = vec4(0.0);
    for (uint k = lane * 4; k < p.k; k += LANES * 4) {
        vec4 a = COLUMN_4(c0, k), b = COLUMN_4(c0 + 1, k);
        vec4 c = COLUMN_4(c0 + 2, k), d = COLUMN_4(c0 + 3, k);
        for (uint t = 0; t < TOKENS; t++)
            if (t0 + t < p.rows) {
                vec4 v = x_4_or_0((t0 + t) * p.x_stride + p.x_col, k);
                sum[t] += vec4(dot(v, a), dot(v, b), dot(v, c), dot(v, d));
            }
    }
    for (uint t = 0; t < TOKENS; t++)
        if (t0 + t < p.rows)
            partial[t][lane] = sum[t];
    barrier();
    for (uint width = LANES / 2; width > 0; width /= 2) {
        for (uint t = 0; t < TOKENS; t++)
            if (t0 + t < p.rows && lane < width)
                partial[t][lane] += partial[t][lane + width];
        barrier();
    }
    uint t = lane / COLUMNS, c = lane % COLUMNS;
    if (t0 + t < p.rows && t < TOKENS && c0 + c < p.n)
        STORE(t0 + t, c0 + c, partial[t][0][c]);
    barrier(); /* before the next columns overwrite it */
}
