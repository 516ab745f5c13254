// Writes how the tokenizers library splits texts by the patterns of published models:
//   node make_regex_cases.mjs NODE_MODULES CASES_JSON OUTPUT_FILE
// CASES_JSON is a list of {name, pattern, behavior, invert}, or an OUTPUT_FILE made before. A model that knows no word
// gives one token a piece, whose offsets tell the piece.
import { createHash } from "crypto";
import { createRequire } from "module";
import fs from "fs";
const [, , modules, casesFile, out] = process.argv;
const { Tokenizer } = createRequire(modules + "/")("tokenizers");
const read = JSON.parse(fs.readFileSync(casesFile));
const texts = [
  "Hello, world! It's 2026 and we'll can't stop: I'd say you've DON'T they're.", "WE'RE HERE, aujourd’hui l’été. NAÏVE Straße ſ K İ",
  "   leading and trailing   \n\n  lines\r\nmixed\rends\t\ttabs \u000b\u000c  ", "12345 1,234.56 ٣٤٥ १२३ ４２ ½ ² Ⅻ ① 0x1F 3.14e-10",
  "日本語のテキスト、カタカナ。中文没有空格 한국어 문장 ไทย ລາວ မြန်မာ", "русский Ελληνικά עברית العربية हिन्दी தமிழ் বাংলা:",
  "https://example.com/path?q=1&x=%20#frag user@example.org @name #tag www.a.b", "for (int i = 0; i < n; ++i) { a[i] += \"x\\n\"; } // done\n\tdef f(x):\n        return x**2",
  "<tag attr='v'>text</tag> <|special|> [UNK] </s><s> {{ x }} $math$ \\alpha", "CC(=O)O ClCBr [NH4+] c1ccccc1 N#N C/C=C\\C", "foo---bar !!!??? ((())) ...,,, \"quoted\" ‘single’ “double” „low‟ ＂wide»",
  "e\u0301 a\u0308 \u1e9b\u0323 ﬁne 🙂👍🏽👨‍👩‍👧 🇩🇪 𝔘𝔫𝔦 \u200b\u200d\u2060\ufeff", "▁under▁▁line Ġbyte _snake_case camelCaseWord ALLCAPSWord v2.0beta", "\u0000nul\u0001\u001f\u007f\u0085\u00a0\u2028\u2029\u3000\u180e end",
  "a", " ", "\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 1111111111111111 !!!!!!!!!!!!!!!!", "x\n y\n\n z\n \n  w", "path\\to\\file C:\\dir /usr/lib/x.so.1 a/b//c",
  "ab a1 1a a_1 _a1 é1 1é a‿b x·y", "Mr. O'Neil's 'quoted' rock'n'roll 'tis", "MgCl2·6H2O p<0.05 α/β 37 °C ±5% €20 $3 £4 ¥5", "tab\there\tand\t\tthere",
];
const result = [];
for (const { name, pattern, behavior, invert } of read.cases ?? read) {
  const tokenizer = Tokenizer.fromString(JSON.stringify({
    version: "1.0", truncation: null, padding: null, added_tokens: [], normalizer: null, post_processor: null, decoder: null,
    pre_tokenizer: { type: "Split", pattern: { Regex: pattern }, behavior, invert },
    model: { type: "WordLevel", vocab: { "[UNK]": 0 }, unk_token: "[UNK]" },
  }));
  const hash = createHash("sha256");
  for (const text of texts) {
    const characters = Array.from(text);
    const offsets = (await tokenizer.encode(text, null, { addSpecialTokens: false })).getOffsets();
    hash.update(offsets.map(([from, to]) => characters.slice(from, to).join("")).join("\x1f") + "\x1e");
  }
  result.push({ name, pattern, behavior, invert, digest: hash.digest("hex").slice(0, 16) });
}
fs.writeFileSync(out, JSON.stringify({ library: "tokenizers 0.23.2", texts, exceptions: read.exceptions ?? {}, cases: result }, null, 1) + "\n");
console.log(result.length);
