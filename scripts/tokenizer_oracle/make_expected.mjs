// Writes what the tokenizers library makes of the texts of texts.mjs, as digests:
//   node make_expected.mjs NODE_MODULES TINY_TOKENIZER OUTPUT_DIR [NAME=tokenizer.json ...]
// NODE_MODULES holds the npm package tokenizers. OUTPUT_DIR gets texts.json and expected.json: for
// each tokenizer one digest a text, of the ids with and without special tokens and of both decoded
// texts. Variants of the tiny tokenizer (variants.json) cover the kinds that few models use.
import { createHash } from "crypto";
import { createRequire } from "module";
import fs from "fs";
import { texts } from "./texts.mjs";
const [, , modules, tinyFile, out, ...named] = process.argv;
const { Tokenizer } = createRequire(modules + "/")("tokenizers");
const list = texts();

// The last 40 texts have characters of any Unicode version; the library's tables for some kinds are
// older than its regex engine's, so variants leave them out.
async function digests(tokenizer, count) {
  const result = [];
  for (const text of list.slice(0, count)) {
    const hash = createHash("sha256");
    for (const addSpecialTokens of [true, false]) {
      const ids = (await tokenizer.encode(text, null, { addSpecialTokens })).getIds();
      hash.update(ids.join(" ") + "\n");
      for (const skip of [false, true]) hash.update((await tokenizer.decode(ids, skip)) + "\n");
    }
    result.push(hash.digest("hex").slice(0, 8));
  }
  return result.join("");
}

const expected = { library: "tokenizers 0.23.2", num_texts: list.length, variants: {}, files: {} };
const tiny = JSON.parse(fs.readFileSync(tinyFile));
const variants = JSON.parse(fs.readFileSync(new URL("../../tests/golden/tokenizers/variants.json", import.meta.url)));
for (const [name, patch] of Object.entries(variants)) {
  const patched = { ...tiny, ...patch, model: { ...tiny.model, ...(patch.model ?? {}) } };
  if (patch.extra_vocab) {
    for (const token of patch.extra_vocab) patched.model.vocab[token] ??= Object.keys(patched.model.vocab).length;
    delete patched.extra_vocab;
  }
  try {
    expected.variants[name] = await digests(Tokenizer.fromString(JSON.stringify(patched)), 400);
  } catch (error) {
    console.error(name, String(error).slice(0, 300));
  }
  if (patch.extra_vocab) for (const token of patch.extra_vocab) delete tiny.model.vocab[token];
}
for (const pair of named) {
  const [name, file] = pair.split("=");
  const bytes = fs.readFileSync(file);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  expected.files[name] = { sha256, digests: await digests(Tokenizer.fromString(bytes.toString()), list.length) };
}
fs.writeFileSync(out + "/texts.json", JSON.stringify(list) + "\n");
fs.writeFileSync(out + "/expected.json", JSON.stringify(expected, null, 1) + "\n");
