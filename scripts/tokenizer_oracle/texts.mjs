// The texts that tokenizers are compared on: a fixed list, made from a few hundred words of our own
// in many scripts, code, numbers, spaces, controls and literal special tokens. Deterministic.
const words = ("the quick brown fox jumps over a lazy dog while quantization of weights keeps language models small " +
  "and fast enough for machines that people own It's they're we'll I'd you've don't can't HELLO World iPhone snake_case " +
  "camelCaseWord ALLCAPS naïve café résumé Straße ſmall KELVIN İstanbul ǅungla ﬁne").split(" ");
const scripts = ["日本語のテキストです。", "中文文本没有空格，标点也不同！", "한국어 문장은 띄어쓰기가 있다.", "Русский текст с пробелами", "ελληνικά γράμματα",
  "نص عربي، مع علامات؟", "עִבְרִית עם ניקוד", "हिन्दी में पाठ।", "ภาษาไทยไม่มีช่องว่าง", "தமிழ் எழுத்து", "ქართული ენა", "Việt Nam đẹp lắm", "ދިވެހި", "🙂👍🏽👨‍👩‍👧‍👦🇩🇪", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ∑∞√≠", "①②Ⅷ½¾²³ ٣٤٥ १२३", "e\u0301a\u0308o\u0302 \u1e9b\u0323 \ufb01 \uac00\u11a8 \u0344"];
const code = ["for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];\n}\n", "def f(x):\n    return [y**2 for y in x if y % 2 == 0]\n", "SELECT id, name FROM users WHERE age >= 18;\r\n",
  "<div class=\"a\">text</div>\n\n\n", "{\"key\": [1, 2.5e-3, null, true], \"näme\": \"v\"}", "https://example.org/path?x=1&y=%20#frag", "C:\\dir\\file.txt\t\t|\tx", "0xDEADBEEF 1,234,567.89 2026-11-26 12:34:56", "!!!???...---===***###@@@", "a  b   c    d     e\n  f\n    g\t\th \n i"];
const odd = ["", " ", "  ", "\n", "\r\n", "\t", "\n\n\n   \n", "   leading", "trailing   ", "\u0000nul\u0001\u0007\u001b[0m", "\u0085next\u180e\u200b\u200d\u2028\u2029\ufeffx", "\u00a0nbsp\u3000ideographic\u2003em",
  "▁already ▁▁ marked", "Ġbyte Ċ", "<0x0A><0xFF>", "\ufffd\ue000\u{10ffff}\u{1f9ff}\u{e0001}", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "                                                                 x",
  "<s>hi</s> <unk><pad>", "<|begin_of_text|>x<|end_of_text|><|eot_id|>", "<|im_start|>user\nhi<|im_end|>\n", "<|endoftext|> <|endoftext|>x", "<bos><start_of_turn>user\nhi<end_of_turn>\n<eos>", "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜><think>\n\n</think>", "[INST] hi [/INST][AVAILABLE_TOOLS]", "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>hi<|END_OF_TURN_TOKEN|><BOS_TOKEN>", "<|start|>assistant<|channel|>analysis<|message|>x<|end|><|return|>",
  "<tool_call>\n{\"name\": \"f\"}\n</tool_call><|fim_prefix|>", "<table><tr><td>x</td></tr></table>\n\n\n\n\n\n", "<unused12> <unused99><mask>", "ab<|im_end|", "<<|im_end|>>", "[UNUSED_TOKEN_12]<|action_start|>", "'S 'T 'LL 'ſ we'Ll I'M", "x'\u017f y", "\u212a \u017f"];
let state = 12345;
const next = (n) => { state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff; return (state >>> 8) % n; };
const pick = (list) => list[next(list.length)];
export function texts() {
  const list = [...odd, ...scripts, ...code];
  const gaps = [" ", " ", " ", " ", ", ", ". ", "\n", "  ", "\t", "", "'", "-", " \n", "\r\n", "…", "/", "_", "\u00a0", "\u3000"];
  while (list.length < 240) {  // mixtures
    let text = "";
    for (let i = 2 + next(30); i > 0; --i) text += pick(pick([words, words, words, scripts, code, [String(next(100000))], odd])) + pick(gaps);
    list.push(text);
  }
  while (list.length < 400) {  // sentences
    let text = "";
    for (let i = 20 + next(80); i > 0; --i) text += pick(words) + (next(12) ? " " : pick([". ", ", ", "! ", "? ", "; ", ".\n", ".\n\n", " (", ") ", " \"", "\" ", ": ", " – ", "’s "]));
    list.push(text);
  }
  while (list.length < 440) {  // any code points
    let text = "";
    for (let i = 1 + next(60); i > 0; --i) {
      const c = pick([next(0x80), next(0x300), next(0x3000), 0x3000 + next(0xa000), 0x10000 + next(0xfffff), 0x1f300 + next(0x400)]);
      if (c < 0xd800 || c > 0xdfff) text += String.fromCodePoint(c);
    }
    list.push(text);
  }
  return list;
}
