// Megabytes of text that the tokenizers library takes in a second of processor time, in documents as tokenizer_bench cuts them:
//   RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false node bench.mjs NODE_MODULES TOKENIZER TEXT [DOCUMENT_BYTES]
import { createRequire } from "module";
import fs from "fs";
const [, , modules, file, textFile, size = "4096"] = process.argv;
const { Tokenizer } = createRequire(modules + "/")("tokenizers");
const tokenizer = Tokenizer.fromFile(file);
const bytes = fs.readFileSync(textFile);
const documents = [];
for (let start = 0; start < bytes.length; ) {
  const at = bytes.indexOf(10, start + Number(size));
  const end = (at < 0 ? bytes.length - 1 : at) + 1;
  documents.push(bytes.subarray(start, end).toString());
  start = end;
}
const seconds = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1e6; };
let first = 0, best = 0, count = 0;
for (let round = 0; round < 6; ++round) {
  const start = seconds();
  count = 0;
  for (const document of documents) count += (await tokenizer.encode(document, null, { addSpecialTokens: true })).getLength();
  const rate = bytes.length / 1e6 / (seconds() - start);
  if (round === 0) first = rate; else best = Math.max(best, rate);
}
console.log(`library: first pass ${first.toFixed(2)} MB/s, then ${best.toFixed(2)} MB/s (${count} ids of ${(bytes.length / 1e6).toFixed(2)} MB)`);
