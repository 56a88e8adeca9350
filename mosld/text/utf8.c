/* mosld/text/utf8.c - see utf8.h. */
#include "mosld/text/utf8.h"

#include "mosld/text/textbuf.h"

/* How long a character with this first byte is, and which second bytes keep it valid: the first continuation byte
 * alone tells overlong forms, surrogates and values above U+10FFFF. 0 for a byte that begins no character. */
static int lead(uint8_t b, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (b < 0x80)
        return 1;
    if (b >= 0xC2 && b <= 0xDF)
        return 2;
    if (b >= 0xE0 && b <= 0xEF) {
        if (b == 0xE0)
            *low = 0xA0;
        if (b == 0xED)
            *high = 0x9F;
        return 3;
    }
    if (b >= 0xF0 && b <= 0xF4) {
        if (b == 0xF0)
            *low = 0x90;
        if (b == 0xF4)
            *high = 0x8F;
        return 4;
    }
    return 0;
}

int utf8_check(const char *bytes, size_t len)
{
    uint8_t low, high;
    int n = lead((uint8_t)bytes[0], &low, &high);
    if (n == 0)
        return -1;
    for (int i = 1; i < n; i++) {
        if ((size_t)i == len)
            return 0;
        uint8_t b = (uint8_t)bytes[i];
        if (b < low || b > high)
            return -i;
        low = 0x80;
        high = 0xBF;
    }
    return n;
}

bool utf8_valid(const char *bytes, size_t len)
{
    for (size_t i = 0; i < len;) {
        int n = utf8_check(bytes + i, len - i);
        if (n <= 0)
            return false;
        i += (size_t)n;
    }
    return true;
}

bool utf8_repair(const char *bytes, size_t len, struct text_buf *out)
{
    size_t good = 0; /* where the run of valid bytes that is not copied yet begins */
    for (size_t i = 0; i < len;) {
        int n = utf8_check(bytes + i, len - i);
        if (n > 0) {
            i += (size_t)n;
            continue;
        }
        size_t skip = n == 0 ? len - i : (size_t)-n;
        if (!text_buf_append(out, bytes + good, i - good) || !text_buf_puts(out, "\xEF\xBF\xBD"))
            return false;
        i += skip;
        good = i;
    }
    return text_buf_append(out, bytes + good, len - good);
}

size_t utf8_length(char first)
{
    uint8_t low, high;
    int n = lead((uint8_t)first, &low, &high);
    return n == 0 ? 1 : (size_t)n;
}

uint32_t utf8_decode(const char *bytes)
{
    const uint8_t *b = (const uint8_t *)bytes;
    switch (utf8_length(bytes[0])) {
    case 2:
        return (uint32_t)(b[0] & 0x1F) << 6 | (b[1] & 0x3Fu);
    case 3:
        return (uint32_t)(b[0] & 0x0F) << 12 | (uint32_t)(b[1] & 0x3F) << 6 | (b[2] & 0x3Fu);
    case 4:
        return (uint32_t)(b[0] & 0x07) << 18 | (uint32_t)(b[1] & 0x3F) << 12 | (uint32_t)(b[2] & 0x3F) << 6 |
               (b[3] & 0x3Fu);
    default:
        return b[0];
    }
}

size_t utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

bool utf8_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* str.isspace() also counts the four information separators. */
static bool strip_space(uint32_t c)
{
    return utf8_is_space(c) || (c >= 0x1C && c <= 0x1F);
}

void utf8_strip(const char **text, size_t *len)
{
    while (*len > 0 && strip_space(utf8_decode(*text))) {
        size_t n = utf8_length(**text);
        *text += n;
        *len -= n;
    }
    while (*len > 0) {
        size_t last = *len - 1;
        while (last > 0 && ((uint8_t)(*text)[last] & 0xC0) == 0x80)
            last--;
        if (!strip_space(utf8_decode(*text + last)))
            return;
        *len = last;
    }
}
