/* mosld/text/hf_pipeline.c - the pipelines of tokenizer.json: normalizer, pre_tokenizer, decoder, post_processor. What
 * is not known is refused by the name of its type. */
#include "mosld/text/hf_json.h"
#include "mosld/text/tokenizer_parts.h"
#include "mosld/text/utf8.h"

#include <string.h>

/* Reads one node of a pipeline; a Sequence's are read one after the other with the same function. */
typedef enum rt_status (*read_step)(struct mosld_tokenizer *t, const cJSON *node, const char *type,
                                    struct rt_error *err);

static const char spaced[] = "\xE2\x96\x81"; /* U+2581 */

static enum rt_status read_pipeline(struct mosld_tokenizer *t, const cJSON *node, const char *what, const char *list,
                                    read_step read, struct rt_error *err)
{
    const char *type;
    if (!node || cJSON_IsNull(node))
        return RT_OK;
    enum rt_status st = hf_type(node, what, &type, err);
    if (st != RT_OK)
        return st;
    if (strcmp(type, "Sequence") != 0) {
        st = read(t, node, type, err);
        return st == RT_OK ? st : rt_error_prefix(err, "%s", what);
    }
    const cJSON *steps, *step;
    st = hf_array(node, list, true, &steps, err);
    if (st != RT_OK)
        return rt_error_prefix(err, "%s", what);
    cJSON_ArrayForEach(step, steps)
    {
        st = read_pipeline(t, step, what, list, read, err);
        if (st != RT_OK)
            break;
    }
    return st;
}

static enum rt_status unknown_type(const char *type, struct rt_error *err)
{
    return rt_fail(err, RT_BAD_FILE, "the type '%.60s' is not supported", type);
}

/* {"Regex": ...} or {"String": ...}. */
static enum rt_status read_pattern(const cJSON *node, struct text_pattern **out, struct rt_error *err)
{
    const cJSON *pattern = hf_get(node, "pattern");
    const char *regex = NULL, *literal = NULL;
    enum rt_status st = hf_string(pattern, "Regex", &regex, err);
    if (st == RT_OK)
        st = hf_string(pattern, "String", &literal, err);
    if (st != RT_OK)
        return st;
    if ((regex && literal) || (!regex && !literal) || (literal && !*literal))
        return rt_fail(err, RT_BAD_FILE, "'pattern' has neither a Regex nor a String");
    return regex ? text_pattern_create(regex, strlen(regex), out, err)
                 : text_pattern_create_literal(literal, strlen(literal), out, err);
}

static enum rt_status read_norm_step(struct mosld_tokenizer *t, const cJSON *node, const char *type,
                                     struct rt_error *err)
{
    static const char *const forms[] = {
        [NORM_NFC] = "NFC", [NORM_NFD] = "NFD", [NORM_NFKC] = "NFKC", [NORM_NFKD] = "NFKD"};
    for (int form = NORM_NFC; form <= NORM_NFKD; form++) {
        if (strcmp(type, forms[form]) == 0)
            return normalizer_add(&t->normalizer, (enum norm_kind)form, NULL, NULL, err);
    }
    bool prepend = strcmp(type, "Prepend") == 0;
    if (!prepend && strcmp(type, "Replace") != 0)
        return unknown_type(type, err);
    const char *key = prepend ? "prepend" : "content", *content = NULL;
    struct text_pattern *pattern = NULL;
    enum rt_status st = hf_string(node, key, &content, err);
    if (st == RT_OK && !content)
        st = rt_fail(err, RT_BAD_FILE, "%s has no '%s'", type, key);
    if (st == RT_OK && !prepend)
        st = read_pattern(node, &pattern, err);
    if (st == RT_OK)
        st = normalizer_add(&t->normalizer, prepend ? NORM_PREPEND : NORM_REPLACE, pattern, content, err);
    return st;
}

enum rt_status tokenizer_read_normalizer(struct mosld_tokenizer *t, const cJSON *node, struct rt_error *err)
{
    return read_pipeline(t, node, "normalizer", "normalizers", read_norm_step, err);
}

static enum rt_status read_split(struct mosld_tokenizer *t, const cJSON *node, struct rt_error *err)
{
    static const struct {
        const char *name;
        enum split_behavior behavior;
    } behaviors[] = {{"Isolated", SPLIT_ISOLATED},
                     {"Removed", SPLIT_REMOVED},
                     {"Contiguous", SPLIT_CONTIGUOUS},
                     {"MergedWithPrevious", SPLIT_WITH_PREVIOUS},
                     {"MergedWithNext", SPLIT_WITH_NEXT}};
    struct pretok_step step = {.kind = PRETOK_SPLIT};
    const char *behavior = NULL;
    enum rt_status st = hf_string(node, "behavior", &behavior, err);
    if (st == RT_OK)
        st = hf_bool(node, "invert", false, &step.invert, err);
    if (st != RT_OK)
        return st;
    size_t i = 0, n = sizeof behaviors / sizeof *behaviors;
    while (i < n && (!behavior || strcmp(behaviors[i].name, behavior) != 0))
        i++;
    if (i == n)
        return rt_fail(err, RT_BAD_FILE, "Split: 'behavior' is '%.60s', which is not known", behavior ? behavior : "");
    step.behavior = behaviors[i].behavior;
    st = read_pattern(node, &step.pattern, err);
    return st == RT_OK ? pretokenizer_add(&t->pretokenizer, step, err) : rt_error_prefix(err, "Split");
}

static enum rt_status read_byte_level(struct mosld_tokenizer *t, const cJSON *node, struct rt_error *err)
{
    bool prefix, regex;
    enum rt_status st = hf_bool(node, "add_prefix_space", true, &prefix, err);
    if (st == RT_OK)
        st = hf_bool(node, "use_regex", true, &regex, err);
    if (st == RT_OK && prefix)
        st = pretokenizer_add(&t->pretokenizer,
                              (struct pretok_step){.kind = PRETOK_SPACE_PREFIX, .prefix = PREFIX_ALWAYS}, err);
    if (st == RT_OK && regex)
        st = pretokenizer_add_regex(&t->pretokenizer, tokenizer_gpt2_regex, SPLIT_ISOLATED, false, err);
    t->byte_level = true;
    return st;
}

static enum rt_status read_prefix_scheme(const cJSON *node, enum prefix_scheme *out, struct rt_error *err)
{
    const char *scheme = NULL;
    bool prefix = true; /* what older files have instead */
    enum rt_status st = hf_string(node, "prepend_scheme", &scheme, err);
    if (st == RT_OK)
        st = hf_bool(node, "add_prefix_space", true, &prefix, err);
    if (st != RT_OK)
        return st;
    if (!scheme)
        scheme = prefix ? "always" : "never";
    if (strcmp(scheme, "always") == 0)
        *out = PREFIX_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        *out = PREFIX_FIRST;
    else if (strcmp(scheme, "never") == 0)
        *out = PREFIX_NEVER;
    else
        st = rt_fail(err, RT_BAD_FILE, "'prepend_scheme' is '%.60s', which is not known", scheme);
    return st;
}

static enum rt_status read_metaspace(struct mosld_tokenizer *t, const cJSON *node, struct rt_error *err)
{
    struct pretok_step step = {.kind = PRETOK_METASPACE, .behavior = SPLIT_WITH_NEXT};
    const char *mark = NULL;
    bool split = true;
    enum rt_status st = hf_string(node, "replacement", &mark, err);
    if (st == RT_OK)
        st = hf_bool(node, "split", true, &split, err);
    if (st == RT_OK)
        st = read_prefix_scheme(node, &step.prefix, err);
    if (st != RT_OK)
        return st;
    if (!mark || strcmp(mark, spaced) != 0)
        return rt_fail(err, RT_BAD_FILE, "Metaspace: 'replacement' is '%.20s', supported is %s", mark ? mark : "",
                       spaced);
    memcpy(step.replacement, spaced, sizeof spaced);
    if (split)
        st = text_pattern_create_literal(spaced, strlen(spaced), &step.pattern, err);
    t->strip_space = step.prefix != PREFIX_NEVER;
    return st == RT_OK ? pretokenizer_add(&t->pretokenizer, step, err) : st;
}

static enum rt_status read_pretok_step(struct mosld_tokenizer *t, const cJSON *node, const char *type,
                                       struct rt_error *err)
{
    struct pretokenizer *p = &t->pretokenizer;
    if (t->byte_level) /* it would see text in the byte alphabet, which we do not make */
        return rt_fail(err, RT_BAD_FILE, "'%.60s' after ByteLevel is not supported", type);
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(t, node, err);
    if (strcmp(type, "Split") == 0)
        return read_split(t, node, err);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(t, node, err);
    if (strcmp(type, "Whitespace") == 0)
        return pretokenizer_add_regex(p, "\\w+|[^\\w\\s]+", SPLIT_REMOVED, true, err);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return pretokenizer_add_regex(p, "\\s", SPLIT_REMOVED, false, err);
    if (strcmp(type, "Digits") == 0) {
        bool each;
        enum rt_status st = hf_bool(node, "individual_digits", false, &each, err);
        return st == RT_OK ? pretokenizer_add_regex(p, "\\p{N}", each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false, err)
                           : st;
    }
    return unknown_type(type, err);
}

enum rt_status tokenizer_read_pretokenizer(struct mosld_tokenizer *t, const cJSON *node, struct rt_error *err)
{
    return read_pipeline(t, node, "pre_tokenizer", "pretokenizers", read_pretok_step, err);
}

/* Replace: U+2581 becomes a space, which decoding does anyway. */
static enum rt_status check_replace(const cJSON *node, struct rt_error *err)
{
    const char *from = NULL, *to = NULL;
    enum rt_status st = hf_string(hf_get(node, "pattern"), "String", &from, err);
    if (st == RT_OK)
        st = hf_string(node, "content", &to, err);
    if (st == RT_OK && (!from || !to || strcmp(from, spaced) != 0 || strcmp(to, " ") != 0))
        st = rt_fail(err, RT_BAD_FILE, "Replace is supported from %s to a space only", spaced);
    return st;
}

static enum rt_status read_strip(struct mosld_tokenizer *t, const cJSON *node, struct rt_error *err)
{
    const char *content = NULL;
    uint32_t start = 0, stop = 0;
    enum rt_status st = hf_string(node, "content", &content, err);
    if (st == RT_OK)
        st = hf_id(hf_get(node, "start"), "'start'", 1, &start, err);
    if (st == RT_OK)
        st = hf_id(hf_get(node, "stop"), "'stop'", 0, &stop, err);
    if (st == RT_OK && (!content || strcmp(content, " ") != 0))
        st = rt_fail(err, RT_BAD_FILE, "'content' is not a space");
    t->strip_space = start == 1;
    return st == RT_OK ? st : rt_error_prefix(err, "Strip");
}

static enum rt_status read_decoder_step(struct mosld_tokenizer *t, const cJSON *node, const char *type,
                                        struct rt_error *err)
{
    if (strcmp(type, "ByteLevel") == 0)
        return t->byte_level ? RT_OK : rt_fail(err, RT_BAD_FILE, "ByteLevel needs the pre_tokenizer ByteLevel");
    if (strcmp(type, "Replace") == 0)
        return check_replace(node, err);
    if (strcmp(type, "Strip") == 0)
        return read_strip(t, node, err);
    if (strcmp(type, "Metaspace") == 0 || strcmp(type, "ByteFallback") == 0 || strcmp(type, "Fuse") == 0)
        return RT_OK; /* what the pre_tokenizer and the model say is enough */
    return unknown_type(type, err);
}

enum rt_status tokenizer_read_decoder(struct mosld_tokenizer *t, const cJSON *node, struct rt_error *err)
{
    return read_pipeline(t, node, "decoder", "decoders", read_decoder_step, err);
}

/* The token that a template puts in front of a text is the beginning token. */
static enum rt_status read_template_token(struct mosld_tokenizer *t, const cJSON *node, const cJSON *special,
                                          struct rt_error *err)
{
    const char *name = NULL;
    enum rt_status st = hf_string(special, "id", &name, err);
    if (st != RT_OK)
        return st;
    const cJSON *ids = hf_get(hf_get(hf_get(node, "special_tokens"), name ? name : ""), "ids");
    if (!cJSON_IsArray(ids) || cJSON_GetArraySize(ids) != 1)
        return rt_fail(err, RT_BAD_FILE, "'special_tokens' does not say which one id '%.60s' has", name ? name : "");
    st = hf_id(ids->child, "an id in 'special_tokens'", VOCAB_MAX_ID - 1, &t->bos, err);
    t->add_bos = true;
    return st;
}

static enum rt_status read_template(struct mosld_tokenizer *t, const cJSON *node, struct rt_error *err)
{
    const cJSON *single, *item;
    bool text_seen = false;
    enum rt_status st = hf_array(node, "single", true, &single, err);
    if (st != RT_OK)
        return st;
    cJSON_ArrayForEach(item, single)
    {
        const cJSON *special = hf_get(item, "SpecialToken");
        if (!special)
            text_seen = true;
        else if (!text_seen && t->add_bos)
            return rt_fail(err, RT_BAD_FILE, "more than one token in front of the text is not supported");
        else if (!text_seen)
            st = read_template_token(t, node, special, err);
        if (st != RT_OK)
            return st;
    }
    return RT_OK;
}

static enum rt_status read_post_step(struct mosld_tokenizer *t, const cJSON *node, const char *type,
                                     struct rt_error *err)
{
    if (strcmp(type, "ByteLevel") == 0)
        return RT_OK; /* offsets only */
    if (strcmp(type, "TemplateProcessing") != 0)
        return unknown_type(type, err);
    enum rt_status st = read_template(t, node, err);
    return st == RT_OK ? st : rt_error_prefix(err, "TemplateProcessing");
}

enum rt_status tokenizer_read_post(struct mosld_tokenizer *t, const cJSON *node, struct rt_error *err)
{
    return read_pipeline(t, node, "post_processor", "processors", read_post_step, err);
}
