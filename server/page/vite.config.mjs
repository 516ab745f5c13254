import {defineConfig} from 'vite';
import {readPresets, readSpecTable} from './scripts/spec_table.mjs';

// `import fields from 'virtual:spec-fields'`: the table of docs/SPEC.md. The report needs no help for forms.
export function specFields({help = true} = {}) {
  const id = '\0virtual:spec-fields';
  const table = () => readSpecTable().map((field) => (help ? field : {...field, help: '', allowed: '', words: []}));
  return {
    name: 'spec-fields',
    resolveId: (source) => (source === 'virtual:spec-fields' ? id : null),
    load: (loaded) => (loaded === id ? `export default ${JSON.stringify(table())}; export const presets = ${JSON.stringify(help ? readPresets() : [])}` : null),
  };
}

export const common = {
  root: import.meta.dirname,
  configFile: false,
  logLevel: 'warn',
  oxc: {jsx: {runtime: 'automatic', importSource: 'preact'}},
};

// The live page. Names without digests: the server says how long they may be kept, and a rebuild changes few files.
export default defineConfig({
  ...common,
  plugins: [specFields()],
  base: './',
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: {polyfill: false},
    assetsInlineLimit: 0,
    rollupOptions: {
      output: {entryFileNames: 'page.js', chunkFileNames: '[name].js', assetFileNames: 'page[extname]'},
    },
  },
  // `npm run dev` beside a server with --http-listen 127.0.0.1:8080
  server: {proxy: {'/v1': process.env.UNIQUANF_HTTP ?? 'http://127.0.0.1:8080'}},
});
