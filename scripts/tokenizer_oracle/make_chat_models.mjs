// Writes what npm @huggingface/jinja makes of real models' chat templates, as digests:
//   node make_chat_models.mjs NODE_MODULES OUTPUT_DIR NAME=tokenizer_config.json ...
// OUTPUT_DIR holds cases.json, whose conversations are rendered (chat_cases.py), and gets models.json.
// The templates are their owners' and not kept here.
import { createHash } from "crypto";
import { createRequire } from "module";
import fs from "fs";
const [, , modules, out, ...named] = process.argv;
const { Template } = createRequire(modules + "/")("@huggingface/jinja");
// strftime_now tells the day that calibration has.
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...args) { super(...(args.length ? args : ["2025-01-01T12:00:00Z"])); }
};
const { conversations } = JSON.parse(fs.readFileSync(out + "/cases.json"));
const special = (config) => Object.fromEntries(Object.entries(config)
  .filter(([name, value]) => name.endsWith("_token") && value && (typeof value === "string" || typeof value.content === "string"))
  .map(([name, value]) => [name, typeof value === "string" ? value : value.content]));
const models = {};
for (const pair of named) {
  const [name, file] = pair.split("=");
  const config = JSON.parse(fs.readFileSync(file));
  let template = config.chat_template;
  const tools = Array.isArray(template) ? template.find((t) => t.name === "tool_use")?.template : undefined;
  if (Array.isArray(template)) template = template.find((t) => t.name === "default").template;
  const parsed = new Template(template), parsedTools = tools ? new Template(tools) : parsed;
  const texts = {};
  for (const [key, conversation] of Object.entries(conversations)) {
    const variables = { tools: null, documents: null, add_generation_prompt: false, ...special(config), ...conversation };
    try {
      const text = (conversation.tools ? parsedTools : parsed).render(variables);
      texts[key] = createHash("sha256").update(text).digest("hex").slice(0, 16);
    } catch (error) {
      texts[key] = "refused";
    }
  }
  models[name] = { template_sha256: createHash("sha256").update(template).digest("hex"), texts };
}
fs.writeFileSync(out + "/models.json", JSON.stringify({ library: "@huggingface/jinja 0.5.11", models }, null, 1) + "\n");
