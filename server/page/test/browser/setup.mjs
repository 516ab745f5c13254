// What the browser's tests look at: the built page over the sample, and a report with the sample's data.
import {mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import path from 'node:path';
import {pathToFileURL} from 'node:url';
import {startFakeServer} from './fake_server.mjs';
import {sample, sampleReport} from './sample.mjs';

const here = path.join(import.meta.dirname, '../..');
export const dist = path.join(here, 'dist');

export async function live({text, switches, port, data = sample({text})} = {}) {
  return startFakeServer({data: {...data, metrics: (job) => ({version: job.version, tasks: data.metricsOf(job)})}, dist, switches, port});
}

/** As worker/task/report_html.cc does it. */
export function fillReport(file, data = sampleReport()) {
  const html = readFileSync(path.join(here, 'report/report.html'), 'utf8')
    .replace('UNIQUANF_REPORT_TITLE', () => 'Quantization report')
    .replace('UNIQUANF_REPORT_DATA', () => JSON.stringify(data).replaceAll('<', '\\u003c'));
  mkdirSync(path.dirname(file), {recursive: true});
  writeFileSync(file, html);
  return pathToFileURL(path.resolve(file)).href;
}

/** [name, URL, origin] of everything that is looked at. */
export function pagesOf(server, folder) {
  const {url} = server;
  return [
    ['jobs', `${url}/#/jobs`, url],
    ['job-running', `${url}/#/jobs/llama-3bit`, url],
    ['job-done', `${url}/#/jobs/llama-3bit-g128`, url],
    ['job-failed', `${url}/#/jobs/typo`, url],
    ['workers', `${url}/#/workers`, url],
    ['compare', `${url}/#/compare?jobs=llama-4bit,llama-3bit-g128,llama-2bit`, url],
    ['submit', `${url}/#/submit`, url],
    ['report', fillReport(path.join(folder, 'report.html')), 'file:'],
  ];
}
