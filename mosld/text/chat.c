/* mosld/text/chat.c - writing conversations in the known templates. See chat.h.
 *
 * Two styles: turns with a header (ChatML, Llama 3, Zephyr), and questions in brackets (Llama 2, Mistral). */
#include "mosld/text/chat.h"
#include "mosld/text/textbuf.h"
#include "mosld/text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* Text under construction. `ok` turns false for good when memory is out, so that only the end needs a check. */
struct writer {
    struct text_buf text;
    struct mosld_text_range *special, *loss;
    size_t special_count, special_cap, loss_count, loss_cap;
    bool ok;
};

static void put(struct writer *w, const char *text)
{
    w->ok = w->ok && text_buf_puts(&w->text, text);
}

static void put_range(struct writer *w, struct mosld_text_range **list, size_t *cap, size_t *count, size_t start)
{
    if (!w->ok || start == w->text.len)
        return;
    w->ok = text_grow((void **)list, cap, *count, sizeof **list);
    if (w->ok)
        (*list)[(*count)++] = (struct mosld_text_range){start, w->text.len};
}

/* What was written since `start` is the template's own. */
static void mark_special(struct writer *w, size_t start)
{
    put_range(w, &w->special, &w->special_cap, &w->special_count, start);
}

/* What was written since `start` is an assistant's. */
static void mark_loss(struct writer *w, size_t start)
{
    put_range(w, &w->loss, &w->loss_cap, &w->loss_count, start);
}

static void put_special(struct writer *w, const char *text)
{
    size_t start = w->text.len;
    put(w, text);
    mark_special(w, start);
}

/* A message's content: broken characters are replaced first, so that the whole text is valid. */
static void put_content(struct writer *w, const char *text, size_t len, bool strip)
{
    struct text_buf fixed = {0};
    w->ok = w->ok && utf8_repair(text, len, &fixed);
    if (w->ok) {
        const char *at = fixed.data;
        size_t n = fixed.len;
        if (strip)
            utf8_strip(&at, &n);
        w->ok = text_buf_append(&w->text, at, n);
    }
    text_buf_finish(&fixed);
}

static bool is_role(const struct mosld_chat_message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

/* --- turns with a header ------------------------------------------------------------------------------------------ */

struct turn_style {
    const char *open, *close; /* around the role: special text */
    const char *after;        /* between header and content */
    const char *end;          /* special text; NULL: the end token */
    const char *tail;         /* behind it */
    const char *bos;          /* in front of everything; NULL: only where the template says bos_first */
    bool strip;
};

static const struct turn_style chatml = {"<|im_start|>", "", "\n", "<|im_end|>", "\n", NULL, false};
static const struct turn_style llama3 = {
    "<|start_header_id|>", "<|end_header_id|>", "\n\n", "<|eot_id|>", "", "<|begin_of_text|>", true};
static const struct turn_style zephyr = {"<|", "|>", "\n", NULL, "\n", NULL, false};

static void put_header(struct writer *w, const struct turn_style *s, const char *role)
{
    size_t start = w->text.len;
    put(w, s->open);
    put(w, role);
    put(w, s->close);
    mark_special(w, start);
    put(w, s->after);
}

static void put_end(struct writer *w, const struct turn_style *s, const struct mosld_chat_params *p)
{
    put_special(w, s->end ? s->end : p->eos ? p->eos : "</s>");
}

static void put_system(struct writer *w, const struct turn_style *s, const struct mosld_chat_params *p,
                       const char *content)
{
    put_header(w, s, "system");
    put(w, content);
    put_end(w, s, p);
    put(w, s->tail);
}

/* Llama 3.1 always has a system turn, which begins with two dates. Returns how many messages it took. */
static size_t put_llama31_system(struct writer *w, const struct mosld_chat_message *messages,
                                 const struct mosld_chat_params *p)
{
    bool given = is_role(&messages[0], "system");
    put_header(w, &llama3, "system");
    put(w, "Cutting Knowledge Date: December 2023\nToday Date: ");
    put(w, p->date ? p->date : "26 Jul 2024");
    put(w, "\n\n");
    if (given)
        put_content(w, messages[0].content, strlen(messages[0].content), true);
    put_end(w, &llama3, p);
    return given;
}

/* A part of a message's content. */
struct part {
    const char *text;
    size_t len;
};

static struct part strip_breaks(struct part p, bool left, bool right)
{
    while (left && p.len > 0 && p.text[0] == '\n') {
        p.text++;
        p.len--;
    }
    while (right && p.len > 0 && p.text[p.len - 1] == '\n')
        p.len--;
    return p;
}

/* The last place of `what` in a part, or NULL. */
static const char *find_last(struct part p, const char *what)
{
    size_t n = strlen(what);
    for (const char *at = p.text + p.len; at >= p.text + n; at--) {
        if (memcmp(at - n, what, n) == 0)
            return at - n;
    }
    return NULL;
}

/* Qwen3's thought: what stands before the first </think>, behind a <think>. Empty where there is none. */
static struct part thought_of(const char *content)
{
    const char *end = strstr(content, "</think>");
    struct part thought = {content, end ? (size_t)(end - content) : 0};
    thought = strip_breaks(thought, false, true);
    const char *begin = find_last(thought, "<think>");
    if (begin) {
        thought.len -= (size_t)(begin + strlen("<think>") - thought.text);
        thought.text = begin + strlen("<think>");
    }
    return strip_breaks(thought, true, true);
}

/* What an answer says behind its thought. */
static struct part answer_of(const char *content)
{
    struct part all = {content, strlen(content)};
    const char *end = find_last(all, "</think>");
    if (!end)
        return all;
    end += strlen("</think>");
    return strip_breaks((struct part){end, all.len - (size_t)(end - content)}, true, false);
}

/* Index of the last question; answers before it lose their thoughts. A tool's response is none. */
static size_t last_query(const struct mosld_chat_message *messages, size_t count)
{
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    for (size_t i = count; i-- > 0;) {
        const char *c = messages[i].content;
        size_t len = strlen(c);
        bool tool =
            strncmp(c, open, strlen(open)) == 0 && len >= strlen(close) && strcmp(c + len - strlen(close), close) == 0;
        if (is_role(&messages[i], "user") && !tool)
            return i;
    }
    return count - 1;
}

static void put_qwen3_answer(struct writer *w, const char *content, bool after_query, bool last)
{
    struct part thought = thought_of(content), answer = answer_of(content);
    if (after_query && (last || thought.len > 0)) {
        put(w, "<think>\n");
        put_content(w, thought.text, thought.len, false);
        put(w, "\n</think>\n\n");
        answer = strip_breaks(answer, true, false);
    }
    put_content(w, answer.text, answer.len, false);
}

static void render_turns(const struct mosld_chat_template *t, const struct turn_style *s,
                         const struct mosld_chat_message *messages, size_t count, const struct mosld_chat_params *p,
                         struct writer *w)
{
    size_t first = 0, query = t->family == MOSLD_CHAT_QWEN3 ? last_query(messages, count) : 0;
    if (s->bos || t->bos_first)
        put_special(w, p->bos ? p->bos : s->bos ? s->bos : "<s>");
    if (t->family == MOSLD_CHAT_LLAMA31)
        first = put_llama31_system(w, messages, p);
    else if (*t->default_system && !is_role(&messages[0], "system"))
        put_system(w, s, p, t->default_system);
    for (size_t i = first; i < count; i++) {
        const struct mosld_chat_message *m = &messages[i];
        bool assistant = is_role(m, "assistant");
        put_header(w, s, m->role);
        size_t start = w->text.len;
        if (assistant && t->family == MOSLD_CHAT_QWEN3)
            put_qwen3_answer(w, m->content, i > query, i + 1 == count);
        else
            put_content(w, m->content, strlen(m->content), s->strip);
        put_end(w, s, p);
        if (assistant)
            mark_loss(w, start);
        put(w, s->tail);
    }
    if (p->add_generation_prompt) {
        put_header(w, s, "assistant");
        if (t->family == MOSLD_CHAT_QWEN3 && p->no_thinking)
            put(w, "<think>\n\n</think>\n\n");
    }
}

/* --- questions in brackets ---------------------------------------------------------------------------------------- */

enum system_place { SYSTEM_NONE, SYSTEM_MARKED, SYSTEM_FIRST, SYSTEM_LAST };

struct bracket_style {
    const char *open, *close;    /* around a question: special text */
    const char *before, *behind; /* around an answer, in front of the end token */
    const char *tail;            /* behind the end token */
    enum system_place system;    /* in which question the system prompt goes, and how */
    bool bos_each;               /* a beginning token before every question, not only the first */
    bool strip_question, strip_answer;
};

static const struct bracket_style brackets[] = {
    [MOSLD_CHAT_LLAMA2] = {"[INST] ", " [/INST]", " ", " ", "", SYSTEM_MARKED, true, true, true},
    [MOSLD_CHAT_MISTRAL_V1] = {" [INST] ", " [/INST]", " ", "", "", SYSTEM_FIRST, false, false, false},
    [MOSLD_CHAT_MISTRAL_V3] = {"[INST] ", "[/INST]", " ", "", "", SYSTEM_LAST, false, false, true},
    [MOSLD_CHAT_MISTRAL_CLASSIC] = {"[INST] ", " [/INST]", "", "", "", SYSTEM_NONE, false, false, false},
    [MOSLD_CHAT_MISTRAL_CLASSIC_SPACE] = {"[INST] ", " [/INST]", "", "", " ", SYSTEM_NONE, false, false, false},
};

static void put_question(struct writer *w, const struct bracket_style *s, const char *system, const char *content)
{
    struct writer inner = {.ok = true}; /* Llama 2 strips both together */
    if (system) {
        put(&inner, s->system == SYSTEM_MARKED ? "<<SYS>>\n" : "");
        put(&inner, system);
        put(&inner, s->system == SYSTEM_MARKED ? "\n<</SYS>>\n\n" : "\n\n");
    }
    put(&inner, content);
    put_special(w, s->open);
    w->ok = w->ok && inner.ok;
    if (w->ok)
        put_content(w, inner.text.data ? inner.text.data : "", inner.text.len, s->strip_question);
    put_special(w, s->close);
    text_buf_finish(&inner.text);
}

static void put_answer(struct writer *w, const struct bracket_style *s, const char *content,
                       const struct mosld_chat_params *p)
{
    size_t start = w->text.len;
    put(w, s->before);
    put_content(w, content, strlen(content), s->strip_answer);
    put(w, s->behind);
    put_special(w, p->eos ? p->eos : "</s>");
    mark_loss(w, start);
    put(w, s->tail);
}

static void render_brackets(const struct bracket_style *s, const struct mosld_chat_message *messages, size_t count,
                            const struct mosld_chat_params *p, struct writer *w)
{
    const char *system = is_role(&messages[0], "system") ? messages[0].content : NULL;
    size_t first = system != NULL, with_system = first;
    for (size_t i = first; s->system == SYSTEM_LAST && i < count; i++) {
        if (is_role(&messages[i], "user"))
            with_system = i;
    }
    if (!s->bos_each)
        put_special(w, p->bos ? p->bos : "<s>");
    for (size_t i = first; i < count; i++) {
        if (is_role(&messages[i], "assistant")) {
            put_answer(w, s, messages[i].content, p);
            continue;
        }
        if (s->bos_each)
            put_special(w, p->bos ? p->bos : "<s>");
        put_question(w, s, i == with_system ? system : NULL, messages[i].content);
    }
}

/* --- checks and the way in ---------------------------------------------------------------------------------------- */

static bool is_bracketed(enum mosld_chat_family family)
{
    return family >= MOSLD_CHAT_LLAMA2 && family <= MOSLD_CHAT_MISTRAL_CLASSIC_SPACE;
}

static enum rt_status check_message(const struct mosld_chat_template *t, const struct mosld_chat_message *messages,
                                    size_t i, struct rt_error *err)
{
    const struct mosld_chat_message *m = &messages[i];
    if (!m->role || !m->content)
        return rt_fail(err, RT_BAD_FILE, "message %zu has no %s", i + 1, m->role ? "content" : "role");
    bool system = is_role(m, "system"), assistant = is_role(m, "assistant");
    if (!system && !assistant && !is_role(m, "user"))
        return rt_fail(err, RT_BAD_FILE,
                       "message %zu has the role '%.40s'; known are system, user and assistant (tool calls are not "
                       "supported)",
                       i + 1, m->role);
    bool opens = i == 0 || (i == 1 && is_role(&messages[0], "system")); /* the conversation itself */
    if (assistant && opens)
        return rt_fail(err, RT_BAD_FILE, "message %zu is an assistant's, but a conversation begins with a user", i + 1);
    if (!is_bracketed(t->family))
        return RT_OK;
    if (system && brackets[t->family].system == SYSTEM_NONE)
        return rt_fail(err, RT_BAD_FILE, "message %zu is a system message, which the chat template %s does not have",
                       i + 1, mosld_chat_template_name(t));
    if (system && i > 0)
        return rt_fail(err, RT_BAD_FILE,
                       "message %zu is a system message; the chat template %s takes one as the first "
                       "message only",
                       i + 1, mosld_chat_template_name(t));
    if (!opens && is_role(&messages[i - 1], m->role))
        return rt_fail(err, RT_BAD_FILE,
                       "messages %zu and %zu are both %s; the chat template %s wants user and "
                       "assistant to take turns",
                       i, i + 1, m->role, mosld_chat_template_name(t));
    return RT_OK;
}

static enum rt_status check_messages(const struct mosld_chat_template *t, const struct mosld_chat_message *messages,
                                     size_t count, struct rt_error *err)
{
    bool user = false;
    if (count == 0)
        return rt_fail(err, RT_BAD_FILE, "the conversation has no messages");
    for (size_t i = 0; i < count; i++) {
        enum rt_status st = check_message(t, messages, i, err);
        if (st != RT_OK)
            return st;
        user = user || is_role(&messages[i], "user");
    }
    return user ? RT_OK : rt_fail(err, RT_BAD_FILE, "the conversation has no user message");
}

enum rt_status mosld_chat_render(const struct mosld_chat_template *t, const struct mosld_chat_message *messages,
                                 size_t count, const struct mosld_chat_params *params, struct mosld_chat_text *out,
                                 struct rt_error *err)
{
    static const struct mosld_chat_params defaults = {0};
    struct writer w = {.ok = true};
    *out = (struct mosld_chat_text){0};
    enum rt_status st = check_messages(t, messages, count, err);
    if (st != RT_OK)
        return st;
    if (!params)
        params = &defaults;
    if (is_bracketed(t->family))
        render_brackets(&brackets[t->family], messages, count, params, &w);
    else
        render_turns(t,
                     t->family == MOSLD_CHAT_ZEPHYR                                      ? &zephyr
                     : t->family == MOSLD_CHAT_LLAMA3 || t->family == MOSLD_CHAT_LLAMA31 ? &llama3
                                                                                         : &chatml,
                     messages, count, params, &w);
    w.ok = w.ok && text_buf_terminate(&w.text);
    *out = (struct mosld_chat_text){w.text.data, w.text.len, w.special, w.special_count, w.loss, w.loss_count};
    if (w.ok)
        return RT_OK;
    mosld_chat_text_finish(out);
    return rt_fail(err, RT_NO_MEMORY, "no memory to write a conversation of %zu messages", count);
}

void mosld_chat_text_finish(struct mosld_chat_text *text)
{
    free(text->text);
    free(text->special);
    free(text->loss);
    *text = (struct mosld_chat_text){0};
}
