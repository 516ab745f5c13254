// A job's settings beside their defaults, and the command that runs the job again.
import fields, {presets} from 'virtual:spec-fields';
import {number} from './format.js';

export {fields, presets};

const byName = new Map(fields.map((field) => [field.name, field]));

/** The value as the table spells it: words in small letters, numbers as numbers; undefined: the default. */
export function plainValue(field, value) {
  if (value === undefined || value === null) return field.value;
  if (field.type === 'integer' || field.type === 'number' || field.type === 'bytes') return number(value) ?? String(value);
  if (field.type === 'word') {
    const word = String(value).toLowerCase();
    return word.endsWith('_unspecified') ? field.value : word;
  }
  return value;
}

export function overrideText(override) {
  const parts = [];
  if (number(override.bits)) parts.push(`bits:${override.bits}`);
  const group = number(override.group_size);
  if (group !== null && group >= 0) parts.push(`group:${group}`);
  if (override.full_precision) parts.push('full');
  return `${override.pattern}=${parts.join(',')}`;
}

function listTexts(field, value) {
  if (!Array.isArray(value)) return [];
  if (field.name === 'overrides') return value.map(overrideText);
  return value.map((share) => `${share.uri || 'FILE'}:num=${share.num_sequences}`);
}

export function valueText(field, value) {
  if (field.type === 'list') return value.length === 0 ? 'none' : listTexts(field, value).join('\n');
  return value === '' ? 'none' : String(value);
}

/** Every setting: {field, value, text, differs}. Fields that the table does not know come last, as they are. */
export function settingsOf(spec) {
  const known = fields.map((field) => {
    const value = plainValue(field, spec?.[field.name]);
    const differs = field.type === 'list' ? value.length > 0 : String(value) !== String(field.value);
    return {field, value, text: valueText(field, value), differs};
  });
  const unknown = Object.keys(spec ?? {}).filter((name) => !byName.has(name) && !String(spec[name]).endsWith('_UNSPECIFIED')).map((name) => ({
    field: {name, flag: '', section: 'Others', value: '', help: '', type: 'text'},
    value: spec[name],
    text: typeof spec[name] === 'object' ? JSON.stringify(spec[name]) : String(spec[name]),
    differs: true,
  }));
  return [...known, ...unknown];
}

/** One shell word. Everything but plain characters is quoted. */
export function shellWord(text) {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

// An artifact does not say where its inputs lay; its report names what must be filled in.
const placeholders = {model_uri: 'MODEL', calibration_uri: 'CALIBRATION', evaluation_uri: 'EVALUATION', output_uri: 'OUTPUT',
                      distillation_uri: 'DISTILLATION'};

/**
 * The command that runs the job again. `program`: "uniquanf submit" or "uniquanf-batch quantize". The output is new each time.
 * `missing`: URIs that the job had although the spec does not show them; they are named in capitals.
 */
export function rerunCommand(spec, program, missing = []) {
  const flags = [];
  for (const {field, value, differs} of settingsOf(spec)) {
    if (!field.flag) continue;
    if (field.name === 'output_uri') {
      flags.push(`${field.flag}=OUTPUT`);
    } else if (placeholders[field.name] && missing.includes(field.name)) {
      flags.push(`${field.flag}=${placeholders[field.name]}`);
    } else if (field.type === 'list') {
      for (const text of listTexts(field, value)) flags.push(`${field.flag}=${shellWord(text)}`);
    } else if (differs) {
      flags.push(`${field.flag}=${shellWord(String(value))}`);
    }
  }
  return [program, ...flags].join(' \\\n  ');
}
