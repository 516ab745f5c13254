// For tests in node, which has no Vite: `virtual:spec-fields` as vite.config.mjs gives it.
import {register} from 'node:module';
import {readPresets, readSpecTable} from '../../scripts/spec_table.mjs';

const source = `export default ${JSON.stringify(readSpecTable())}; export const presets = ${JSON.stringify(readPresets())}`;
const hook = `
  export function resolve(name, context, next) {
    return name === 'virtual:spec-fields' ? {url: 'virtual:spec-fields', shortCircuit: true} : next(name, context);
  }
  export function load(url, context, next) {
    return url === 'virtual:spec-fields' ? {format: 'module', source: ${JSON.stringify(source)}, shortCircuit: true} : next(url, context);
  }`;
register(`data:text/javascript,${encodeURIComponent(hook)}`);
