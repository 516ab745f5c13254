// The settings of a job with their defaults, read from docs/SPEC.md, which the C++ table of fields prints and a C++ test compares:
// so the page cannot know other defaults than the programs.
import {readFileSync} from 'node:fs';

/** Cells of a Markdown table's line; `\|` is a bar inside a cell. */
function cells(line) {
  return line.replace(/^\||\|\s*$/g, '').split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll('\\|', '|'));
}

const unquote = (text) => text.replace(/^`|`$/g, '');

function parseDefault(type, text) {
  if (text === 'none' || text === 'required' || text === '') return type === 'list' ? [] : '';
  const plain = unquote(text);
  return (type === 'integer' || type === 'number' || type === 'bytes') && Number.isFinite(Number(plain)) ? Number(plain) : plain;
}

/** Fields in the table's order: {name, flag, type, section, value (the default), words, help}. Throws where the page has no table. */
export function parseSpecTable(markdown) {
  const fields = [];
  let section = '';
  for (const line of markdown.split('\n')) {
    if (line.startsWith('## ')) section = line.slice(3).trim();
    const row = line.startsWith('| `') ? cells(line) : [];
    if (row.length !== 6 || !row[1].startsWith('`--')) continue;
    const [name, flag, type, value, allowed, help] = row;
    fields.push({
      name: unquote(name),
      flag: unquote(flag),
      type,
      required: value === 'required',
      section,
      value: parseDefault(type, value),
      words: type === 'word' ? [...allowed.matchAll(/`([^`]+)`/g)].map((match) => match[1]) : [],
      allowed: type === 'word' ? '' : allowed,
      help,
    });
  }
  if (fields.length < 20) throw new Error('docs/SPEC.md has no tables of fields as this script knows them');
  return fields;
}

/** Presets: {name, sets: text, help}. */
export function parsePresets(markdown) {
  return markdown.slice(Math.max(markdown.indexOf('\n## Presets'), 0)).split('\n').filter((line) => line.startsWith('| `')).map(cells)
    .filter((row) => row.length === 3).map(([name, sets, help]) => ({name: unquote(name), sets: sets.replaceAll('`', ''), help}));
}

const read = () => readFileSync(new URL('../../../docs/SPEC.md', import.meta.url), 'utf8');
export const readSpecTable = () => parseSpecTable(read());
export const readPresets = () => parsePresets(read());
