// shaders/common/philox.glsl - Philox 4x32-10 and the threshold of a mask: the same bits as mosld/ops/philox.h.

uvec4 philox(uvec4 c, uvec2 k)
{
    for (int i = 0; i < 10; i++) {
        uint high0, low0, high1, low1;
        umulExtended(c.x, 0xd2511f53u, high0, low0);
        umulExtended(c.z, 0xcd9e8d57u, high1, low1);
        c = uvec4(high1 ^ c.y ^ k.x, low1, high0 ^ c.w ^ k.y, low0);
        k += uvec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// (1 - drop) 2^32 cut to an integer, for 0 < drop < 1 given by its bits: see philox_threshold in C.
uint philox_threshold(uint bits)
{
    uint exponent = bits >> 23, mantissa = (bits & 0x7fffffu) | 0x800000u;
    if (exponent >= 118u)
        return 0u - (mantissa << (exponent - 118u));
    uint shift = 118u - exponent;
    return 0u - (shift < 24u ? (mantissa + (1u << shift) - 1u) >> shift : 1u);
}
