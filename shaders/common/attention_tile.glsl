// What the attention kernels share: three 32 x 32 tiles in shared memory (12.4 KiB) and products of them in registers.
//
// 128 invocations; each holds 2 x 4 sums of a tile: rows row and row + 16, columns col + 8 j. Head dimensions go
// through the tiles 32 at a time, so the shared memory needed does not grow with them. Rows are padded to 33 words
// against bank conflicts.
#ifndef ATTENTION_TILE_GLSL
#define ATTENTION_TILE_GLSL

#extension GL_EXT_control_flow_attributes : enable

#define GROUP 128
#define PITCH (TILE + 1)
#define MASKED -1e30

layout(local_size_x = GROUP) in;

#include "common/attention_seen.glsl"

shared float a_tile[TILE * PITCH];
shared float b_tile[TILE * PITCH];
shared float s_tile[TILE * PITCH];

uint row_of(uint i) { return gl_LocalInvocationIndex / 8 + 16 * (i / 4); }
uint col_of(uint i) { return gl_LocalInvocationIndex % 8 + 8 * (i % 4); }

// tile[r, c] = values[begin + r * stride + c] for r < rows and c < cols, else 0. Its own names end in _, since
// arguments are expressions.
#define LOAD_TILE(tile, values, begin, stride, rows, cols)                                                    \
    for (uint k_ = gl_LocalInvocationIndex; k_ < TILE * TILE; k_ += GROUP) {                                  \
        uint r_ = k_ / TILE, c_ = k_ % TILE;                                                                  \
        tile[r_ * PITCH + c_] = r_ < (rows) && c_ < (cols) ? values[(begin) + r_ * (stride) + c_] : 0.0;      \
    }

// acc[r, c] += sum_k a[r, k] b[c, k]
void add_a_bt(inout float acc[8])
{
    uint r = row_of(0) * PITCH, c = col_of(0) * PITCH;
    for (uint k = 0; k < TILE; k++) {
        float a0 = a_tile[r + k], a1 = a_tile[r + 16 * PITCH + k];
        [[unroll]] for (uint j = 0; j < 4; j++) {
            float b = b_tile[c + 8 * j * PITCH + k];
            acc[j] += a0 * b;
            acc[4 + j] += a1 * b;
        }
    }
}

// acc[r, c] += sum_k s[r, k] b[k, c]
void add_s_b(inout float acc[8])
{
    uint r = row_of(0) * PITCH, c = col_of(0);
    for (uint k = 0; k < TILE; k++) {
        float s0 = s_tile[r + k], s1 = s_tile[r + 16 * PITCH + k];
        [[unroll]] for (uint j = 0; j < 4; j++) {
            float b = b_tile[k * PITCH + c + 8 * j];
            acc[j] += s0 * b;
            acc[4 + j] += s1 * b;
        }
    }
}

// acc[r, c] += sum_k s[k, r] b[k, c]
void add_st_b(inout float acc[8])
{
    uint r = row_of(0), c = col_of(0);
    for (uint k = 0; k < TILE; k++) {
        float s0 = s_tile[k * PITCH + r], s1 = s_tile[k * PITCH + r + 16];
        [[unroll]] for (uint j = 0; j < 4; j++) {
            float b = b_tile[k * PITCH + c + 8 * j];
            acc[j] += s0 * b;
            acc[4 + j] += s1 * b;
        }
    }
}

void clear(inout float acc[8])
{
    [[unroll]] for (uint i = 0; i < 8; i++)
        acc[i] = 0;
}

#endif
