// Which keys the TILE query rows of a group see.
#ifndef ATTENTION_SEEN_GLSL
#define ATTENTION_SEEN_GLSL

shared uint seen_own[TILE], seen_begin[TILE], seen_end[TILE]; // of each query row

// A row beyond the last token sees nothing.
void set_seen(uint r, bool valid, uint own, uint begin, uint end)
{
    seen_own[r] = valid ? own : 0xffffffffu;
    seen_begin[r] = valid ? begin : 0;
    seen_end[r] = valid ? end : 0;
}

// Whether query row r, which is token t, sees key j.
bool sees(uint r, uint t, uint j) { return (seen_own[r] <= j && j <= t) || (seen_begin[r] <= j && j < seen_end[r]); }

// The keys that any of `rows` query rows sees lie in [x, y) or [z, the last row's token]; x <= y <= z. After a barrier.
uvec3 seen_ranges(uint rows)
{
    uint begin = 0xffffffffu, end = 0, own = 0xffffffffu;
    for (uint r = 0; r < rows; r++) {
        own = min(own, seen_own[r]);
        if (seen_begin[r] < seen_end[r]) {
            begin = min(begin, seen_begin[r]);
            end = max(end, seen_end[r]);
        }
    }
    end = min(end, own); // what lies behind is in the second range in any case
    return uvec3(min(begin, end), end, own);
}

#endif
