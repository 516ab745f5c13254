// Builds dist/ (the live page) and report/report.html (the report: one file, into which worker/task puts a job's data).
//   node scripts/build.mjs [FOLDER]      FOLDER: where both go; default: here
import {createHash} from 'node:crypto';
import {mkdirSync, writeFileSync} from 'node:fs';
import path from 'node:path';
import {build} from 'vite';
import live, {common, specFields} from '../vite.config.mjs';

const out = path.resolve(process.argv[2] ?? path.join(import.meta.dirname, '..'));

await build({...live, configFile: false, build: {...live.build, outDir: path.join(out, 'dist')}});

const result = await build({
  ...common,
  plugins: [specFields({help: false})],
  publicDir: false,
  build: {
    write: false,
    target: 'es2022',
    cssCodeSplit: false,
    rollupOptions: {
      input: path.join(common.root, 'src/report.jsx'),
      output: {format: 'iife', entryFileNames: 'report.js', assetFileNames: 'report[extname]'},
    },
  },
});
const files = (Array.isArray(result) ? result[0] : result).output;
const script = files.find((file) => file.fileName === 'report.js').code.trim();
const style = String(files.find((file) => file.fileName.endsWith('.css')).source).trim();
if (/<\/script|<!--/i.test(script) || /<\/style/i.test(style)) {
  throw new Error('the built code holds an end tag; it cannot stand inside HTML');
}
const digest = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
// UNIQUANF_REPORT_TITLE and UNIQUANF_REPORT_DATA are what worker/task/report_html.cc puts in.
const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src ${digest(script)}; style-src ${digest(style)}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>UNIQUANF_REPORT_TITLE</title>
<style>${style}</style>
</head>
<body>
<noscript>This report draws itself with JavaScript, which is off. Its data is in this file, as JSON in the element with the id "data".</noscript>
<div id="page"></div>
<script type="application/json" id="data">UNIQUANF_REPORT_DATA</script>
<script>${script}</script>
</body>
</html>
`;
mkdirSync(path.join(out, 'report'), {recursive: true});
writeFileSync(path.join(out, 'report', 'report.html'), html);
console.log(`report/report.html ${(html.length / 1024).toFixed(1)} KiB`);
