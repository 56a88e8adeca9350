// What the attention kernels for drivers that run on the processor share. No shared memory and no barriers: there, a
// barrier splits the kernel and shared memory is read lane by lane.
//
// An invocation holds OWN rows (queries, or keys for their gradient) and meets OTHER rows at a time. Of the OTHER rows
// each of 8 lanes loads an eighth and hands it round from register to register, since a load costs as much as a dozen
// multiply-adds. Sums over rows go through the output, which the invocation that owns the row alone reads and writes.
#ifndef ATTENTION_LANES_GLSL
#define ATTENTION_LANES_GLSL

#extension GL_EXT_control_flow_attributes : enable
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_KHR_shader_subgroup_arithmetic : require

#define OWN ATTENTION_LANES_OWN
#define OTHER 16
#define LANES 8
#define MASKED -1e30

layout(local_size_x = 16) in; // whole subgroups: the host side asks for a size that divides it

// The OWN * LANES rows of 8 lanes lie side by side, so that they see much the same.
uint own_row(uint first, uint i)
{
    return first + gl_LocalInvocationIndex / LANES * LANES * OWN + i * LANES + gl_LocalInvocationIndex % LANES;
}

// The row that this lane loads for the others, h < OTHER / LANES.
uint lent_row(uint first, uint h) { return first + h * LANES + gl_SubgroupInvocationID % LANES; }

#define FOUR(values, at) vec4(values[at], values[(at) + 1], values[(at) + 2], values[(at) + 3])

// Four numbers of what is lent.
#ifndef LENT
#define LENT(values, at, d) FOUR(values, (at) + (d))
#endif

// value of OTHER row j, of which lane j % 8 has lent[j / 8]
#define HAND(lent, j) subgroupBroadcast(lent[(j) / LANES], (j) % LANES)

// acc[i * OTHER + j] += <own row i, other row j>. own_at[OWN] and lent_at[OTHER / LANES] say where the rows begin. Names of
// its own end in _, since arguments are expressions.
#define ADD_DOTS(acc, own_values, own_at, lent_values, lent_at)                                               \
    for (uint d_ = 0; d_ < p.head_dim; d_ += 4) {                                                             \
        vec4 own_[OWN], lent_[OTHER / LANES];                                                                 \
        [[unroll]] for (uint i_ = 0; i_ < OWN; i_++)                                                          \
            own_[i_] = FOUR(own_values, own_at[i_] + d_);                                                     \
        [[unroll]] for (uint h_ = 0; h_ < OTHER / LANES; h_++)                                                \
            lent_[h_] = LENT(lent_values, lent_at[h_], d_);                                                    \
        [[unroll]] for (uint s_ = 0; s_ < 4; s_++)                                                            \
            [[unroll]] for (uint j_ = 0; j_ < OTHER; j_++) {                                                  \
                float other_ = subgroupBroadcast(lent_[j_ / LANES][s_], j_ % LANES);                          \
                [[unroll]] for (uint i_ = 0; i_ < OWN; i_++)                                                  \
                    acc[i_ * OTHER + j_] += own_[i_][s_] * other_;                                            \
            }                                                                                                 \
    }

// out row i = shrink[i] * out row i + sum_j weight[i * OTHER + j] other row j; where `first`, what out holds is not used.
#define ADD_ROWS(out_values, out_at, valid, first, shrink, weight, lent_values, lent_at)                      \
    for (uint d_ = 0; d_ < p.head_dim; d_ += 4) {                                                             \
        vec4 sum_[OWN], lent_[OTHER / LANES];                                                                 \
        [[unroll]] for (uint h_ = 0; h_ < OTHER / LANES; h_++)                                                \
            lent_[h_] = LENT(lent_values, lent_at[h_], d_);                                                    \
        [[unroll]] for (uint i_ = 0; i_ < OWN; i_++)                                                          \
            sum_[i_] = vec4(0.0);                                                                             \
        if (!(first))                                                                                         \
            [[unroll]] for (uint i_ = 0; i_ < OWN; i_++)                                                      \
                sum_[i_] = FOUR(out_values, out_at[i_] + d_) * shrink(i_);                                    \
        [[unroll]] for (uint j_ = 0; j_ < OTHER; j_++)                                                        \
            [[unroll]] for (uint s_ = 0; s_ < 4; s_++) {                                                      \
                float other_ = subgroupBroadcast(lent_[j_ / LANES][s_], j_ % LANES);                          \
                [[unroll]] for (uint i_ = 0; i_ < OWN; i_++)                                                  \
                    sum_[i_][s_] += weight[i_ * OTHER + j_] * other_;                                         \
            }                                                                                                 \
        [[unroll]] for (uint i_ = 0; i_ < OWN; i_++)                                                          \
            if (valid[i_])                                                                                    \
                [[unroll]] for (uint s_ = 0; s_ < 4; s_++)                                                    \
                    out_values[out_at[i_] + d_ + s_] = sum_[i_][s_];                                          \
    }

// Which keys a token sees.
struct seen_keys {
    uint token, own, begin, end;
};

bool sees(seen_keys q, uint j) { return (q.own <= j && j <= q.token) || (q.begin <= j && j < q.end); }

seen_keys sees_nothing() { return seen_keys(0, 0xffffffffu, 0, 0); }

// The keys that any query of the subgroup sees lie in [x, y) or [z, w); x <= y <= z. All lanes get the same.
uvec4 seen_ranges(seen_keys q[OWN])
{
    uint begin = 0xffffffffu, end = 0, own = 0xffffffffu, last = 0;
    [[unroll]] for (uint i = 0; i < OWN; i++) {
        bool prefix = q[i].begin < q[i].end, any = q[i].own != 0xffffffffu;
        own = min(own, q[i].own);
        last = max(last, any ? q[i].token + 1 : 0);
        begin = prefix ? min(begin, q[i].begin) : begin;
        end = prefix ? max(end, q[i].end) : end;
    }
    own = subgroupMin(own);
    last = subgroupMax(last);
    end = min(subgroupMax(end), own); // what lies behind is in the second range in any case
    begin = min(subgroupMin(begin), end);
    return uvec4(begin, end, min(own, last), last);
}

#endif
