// The page of a real server with a real worker: a job of examples/tiny is submitted by the page, followed, opened in the middle; the
// server is killed under it; and the report in the artifact is opened. node --test test/browser/live.mjs
// UNIQUANF_BIN: the folder of the programs (default: build/bin of the project). UNIQUANF_PAGE=ORIGIN: a page that is served elsewhere.
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {existsSync, mkdtempSync, rmSync} from 'node:fs';
import net from 'node:net';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {after, before, test} from 'node:test';
import {pathToFileURL} from 'node:url';
import {axeFindings, launch, openPage, overflow} from './browser.mjs';

const root = path.resolve(import.meta.dirname, '../../../..');
const bin = process.env.UNIQUANF_BIN ?? path.join(root, 'build/bin');
const pictures = process.env.UNIQUANF_PICTURES;
const folder = mkdtempSync(path.join(tmpdir(), 'uniquanf-live-'));
const children = new Set();
let browser, grpcPort, httpPort, server;

const freePort = () => new Promise((resolve) => {
  const probe = net.createServer().listen(0, '127.0.0.1', () => { const {port} = probe.address(); probe.close(() => resolve(port)); });
});

function start(program, args) {
  const child = spawn(path.join(bin, program), args, {stdio: ['ignore', 'ignore', 'inherit']});
  children.add(child);
  child.on('exit', () => children.delete(child));
  return child;
}

async function waitFor(what, ask, timeout = 60000) {
  const end = Date.now() + timeout;
  for (;;) {
    const found = await Promise.resolve(ask()).catch(() => null);
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what}: not after ${timeout / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

const origin = () => process.env.UNIQUANF_PAGE ?? `http://127.0.0.1:${httpPort}`;
const api = async (route) => (await fetch(`http://127.0.0.1:${httpPort}${route}`)).json();

async function startServer() {
  server = start('uniquanf-server', [`--listen=127.0.0.1:${grpcPort}`, `--http-listen=127.0.0.1:${httpPort}`, `--data-dir=${folder}/server`]);
  await waitFor('the server', () => api('/v1/server').then((info) => info.active));
}

const picture = (page, name) => pictures && page.screenshot({path: path.join(pictures, `live-${name}.png`), fullPage: true});

before(async () => {
  grpcPort = await freePort();
  httpPort = Number(process.env.UNIQUANF_HTTP_PORT ?? await freePort());
  browser = await launch();
  await startServer();
  start('uniquanf-worker', [`--server=127.0.0.1:${grpcPort}`, '--name=live']);
  await waitFor('the worker', () => api('/v1/workers').then((reply) => reply.workers?.length > 0));
});
after(async () => {
  await browser?.close();
  for (const child of children) child.kill('SIGKILL');
  rmSync(folder, {recursive: true, force: true});
});

test('a job from the form to the report, with the server killed in between', {timeout: 900000}, async () => {
  const {page, trouble, close} = await openPage(browser, {origin: origin(), width: 1280});
  page.setDefaultTimeout(120000);
  await page.goto(`${origin()}/#/submit`);
  await page.getByLabel('model_uri').fill(pathToFileURL(path.join(root, 'examples/tiny')).href);
  await page.getByLabel('calibration_uri').fill(pathToFileURL(path.join(root, 'examples/tokens/tiny_calib.safetensors')).href);
  await page.getByLabel('evaluation_uri').fill(pathToFileURL(path.join(root, 'examples/tokens/tiny_eval.safetensors')).href);
  await page.getByLabel('output_uri').fill(pathToFileURL(path.join(folder, 'out')).href);
  await page.getByLabel('bits', {exact: true}).fill('3');
  await page.getByText('What to quantize', {exact: true}).click();
  await page.getByText('Calibration and optimization', {exact: true}).click();
  await page.getByLabel('num_samples').fill('16');
  await page.getByLabel('sequence_length').fill('128');
  await page.getByLabel('epochs').fill('6');
  await page.getByLabel('evaluation_max_windows').fill('20');
  await page.getByText('The job: name').click();
  await page.getByLabel('Name', {exact: true}).fill('live');
  await page.getByRole('button', {name: 'Submit', exact: true}).click();
  await page.waitForURL(/#\/jobs\/live$/);
  await page.locator('h1 .state-live').waitFor();

  // In the middle: the server goes, and comes back under the page. The worker goes on.
  await waitFor('two layers', () => api('/v1/jobs/live').then((job) => (job.progress?.num_layers_succeeded ?? 0) >= 2), 400000);
  server.kill('SIGKILL');
  await page.getByText('No answer from the server').waitFor({timeout: 5000});
  await picture(page, 'silent');
  await startServer();
  await page.getByText('No answer from the server').waitFor({state: 'detached', timeout: 10000});

  // Another page, opened only now, shows what went before.
  const late = await openPage(browser, {origin: origin(), width: 1280, dark: true});
  await late.page.goto(`${origin()}/#/jobs/live`);
  const metrics = await fetch(`http://127.0.0.1:${httpPort}/v1/jobs/live/metrics`);
  if (metrics.ok) {
    await waitFor('the curves of the layers that are done', async () => (await late.page.getByLabel('Highlight').locator('option').count()) >= 3, 30000);
    const tasks = (await metrics.json()).tasks.filter((task) => task.kind === 'LAYER');
    assert.ok(tasks.length >= 2 && tasks[0].history.steps.length > 5, 'each has its points from the start');
  }
  await picture(late.page, 'middle');
  assert.deepEqual(late.trouble, []);
  await late.close();

  await page.locator('h1 .state-good').waitFor({timeout: 500000});
  await page.getByText('Perplexity', {exact: true}).waitFor();
  await page.getByRole('region', {name: 'Layers', exact: true}).waitFor();
  assert.deepEqual(await axeFindings(page), []);
  assert.deepEqual(await overflow(page), []);
  await picture(page, 'done');
  await page.goto(`${origin()}/#/workers`);
  await page.getByRole('region', {name: 'Workers'}).waitFor();
  await page.goto(`${origin()}/#/jobs`);
  await page.locator('td .state-good').waitFor();
  await picture(page, 'jobs');
  // A killed server refuses connections, which the browser notes on its console; nothing else may be there.
  assert.deepEqual(trouble, []);
  await close();

  const report = path.join(folder, 'out/report.html');
  assert.ok(existsSync(report));
  const file = await openPage(browser, {origin: 'file:', width: 1280});
  await file.page.goto(pathToFileURL(report).href);
  await file.page.getByText('Modules, the worst first').waitFor({timeout: 5000});
  const shown = await file.page.locator('body').innerText();
  for (const part of ['tiny', 'Quantization report of job live', 'LlamaForCausalLM', 'Bytes by part', '--bits=3', '--num-samples=16']) assert.ok(shown.includes(part), part);
  assert.ok((await file.page.getByLabel('Highlight').locator('option').count()) >= 3);
  assert.deepEqual(await axeFindings(file.page), []);
  assert.deepEqual(file.trouble, []);
  await picture(file.page, 'report');
  await file.close();
});
