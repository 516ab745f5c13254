// Tests in Debian's Chromium, of the built page over the sample and of a report. node test/browser/run.mjs
import assert from 'node:assert/strict';
import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {after, before, describe, test} from 'node:test';
import {axeFindings, launch, openPage, overflow} from './browser.mjs';
import {sample, sampleReport} from './sample.mjs';
import {fillReport, live, pagesOf} from './setup.mjs';

const folder = mkdtempSync(path.join(tmpdir(), 'uniquanf-page-'));
const markup = (name) => `${name}<img src=x onerror="markupRan.push(1)"><script>markupRan.push(2)</script>"'&`;
let browser, server;

before(async () => {
  browser = await launch();
  server = await live();
});
after(async () => {
  await browser.close();
  await server.stop();
  rmSync(folder, {recursive: true});
});

/** Opens a page, runs `check`, and then asks for what must hold everywhere. */
async function visit(url, options, check) {
  const opened = await openPage(browser, options);
  try {
    await opened.page.goto(url);
    await check(opened.page, opened);
    assert.deepEqual(opened.trouble, []);
  } finally {
    await opened.close();
  }
}
const text = (page, selector = 'main') => page.locator(selector).first().innerText();

describe('every page', () => {
  for (const width of [360, 768, 1920]) {
    for (const dark of [false, true]) {
      test(`${width} px, ${dark ? 'dark' : 'light'}: no serious finding of axe-core, no request elsewhere, nothing sticks out`, async () => {
        for (const [name, url, origin] of pagesOf(server, folder)) {
          await visit(url, {width, dark, origin}, async (page) => {
            await page.locator('main h1, main h2, main .notice').first().waitFor();
            await page.waitForTimeout(400);
            assert.deepEqual(await axeFindings(page), [], name);
            assert.deepEqual(await overflow(page), [], name);
          });
        }
      });
    }
  }
});

describe('jobs', () => {
  test('are listed, filtered, and a wrong filter is explained', () => visit(`${server.url}/`, {origin: server.url}, async (page) => {
    await page.getByRole('link', {name: 'llama-3bit', exact: true}).waitFor();
    assert.match(await text(page), /no worker offers device cuda/);
    assert.match(await text(page), /57% · 18 min 24 s left/);
    assert.match(await text(page), /6\.241 → 6\.401 \+2\.6%/);
    await page.getByLabel('State').selectOption('FAILED');
    await page.getByText('there is no config.json').waitFor();
    await page.getByRole('link', {name: 'llama-3bit', exact: true}).waitFor({state: 'detached'});
    await page.getByLabel('Filter').fill('colour=red');
    await page.getByRole('button', {name: 'Filter'}).click();
    await page.getByText('[INVALID_FILTER]').waitFor();
  }));
  test('are compared', () => visit(`${server.url}/#/jobs`, {origin: server.url}, async (page) => {
    for (const id of ['llama-4bit', 'llama-2bit']) await page.getByLabel(`compare ${id}`).check();
    await page.getByRole('link', {name: 'Compare 2'}).click();
    await page.getByText('Settings that differ').waitFor();
    assert.equal(await page.locator('.scatter circle').count(), 4);
    assert.match(await text(page), /original 6\.241/);
  }));
});

describe('a job', () => {
  test('opened in the middle shows every curve from the start', () => visit(`${server.url}/#/jobs/llama-3bit`, {origin: server.url}, async (page) => {
    await page.getByLabel('Highlight').waitFor();
    assert.equal(await page.getByLabel('Highlight').locator('option').count(), 21, '19 layers that are done, one that runs, and "none"');
    const plot = page.getByRole('group', {name: /Loss while reconstructing/});
    await plot.focus();
    await page.keyboard.press('ArrowUp');
    await page.keyboard.press('ArrowRight');
    await page.getByText(/layer 0 · step 10 · 2/).waitFor();
    assert.match(await text(page), /layer 19\s+reconstructing 380 of 640/);
    assert.match(await text(page), /LEASE_EXPIRED/);
  }));
  test('that failed says why', () => visit(`${server.url}/#/jobs/typo`, {origin: server.url}, async (page) => {
    await page.getByText('[MODEL_NOT_FOUND]').waitFor();
    assert.equal(await page.getByRole('region', {name: 'Failed attempts'}).locator('tbody tr').count(), 2);
  }));
  test('that is done shows verdict, figures, samples and the command', () => visit(`${server.url}/#/jobs/llama-2bit`, {origin: server.url}, async (page) => {
    await page.getByText('noticeably worse').waitFor();
    const shown = await text(page);
    for (const part of ['6.241 → 8.913', '+42.8%', 'The capital of Norway is', '--bits=2', 'uniquanf download llama-2bit', 'group_size']) assert.ok(shown.includes(part.replaceAll(' → ', '\u00a0→\u00a0')), part);
    assert.ok(!shown.includes('uniform_learning_rate'));
    await page.getByLabel('also what is as by default').check();
    assert.ok((await text(page)).includes('uniform_learning_rate'));
  }));
  test('that does not exist is named', () => visit(`${server.url}/#/jobs/absent`, {origin: server.url}, async (page) => {
    await page.getByText('there is no job absent').waitFor();
  }));
  test('is cancelled after a question', async () => {
    const own = await live();
    await visit(`${own.url}/#/jobs/llama-3bit`, {origin: own.url}, async (page) => {
      await page.getByRole('button', {name: 'Cancel'}).click();
      assert.ok(!own.requests.some((request) => request.method === 'POST'));
      await page.getByRole('button', {name: 'Yes, cancel it'}).click();
      await page.getByText('cancelling', {exact: true}).waitFor();
      assert.ok(own.requests.some((request) => request.method === 'POST' && request.path === '/v1/jobs/llama-3bit:cancel'));
    });
    await own.stop();
  });
});

describe('a server', () => {
  test('that is killed is said to be silent within 5 s, and what comes back is shown', async () => {
    let own = await live();
    const {port} = own;
    for (const place of ['jobs', 'jobs/llama-3bit', 'workers']) {
      await visit(`${own.url}/#/${place}`, {origin: own.url}, async (page) => {
        await page.locator('main h1').first().waitFor();
        await page.waitForTimeout(500);
        await own.stop();
        await page.getByText('No answer from the server').waitFor({timeout: 5000});
        if (place === 'jobs/llama-3bit') {
          assert.ok(!/\d (s|min|h) left/.test(await text(page)), 'no time left is promised by a server that is silent');
          assert.equal(await page.locator('.progress.stale').count(), 1);
        }
        own = await live({port});
        await page.getByText('No answer from the server').waitFor({state: 'detached', timeout: 6000});
        await page.getByText('llama-3bit').first().waitFor();
      });
    }
    await own.stop();
  });
  test('without a free stream is polled', async () => {
    const own = await live({switches: {streams: false}});
    await visit(`${own.url}/#/jobs/llama-3bit`, {origin: own.url}, async (page) => {
      await page.getByText('polling: the server has no stream free').waitFor();
      assert.match(await text(page), /19 of 32/);
      assert.equal(own.requests.filter((request) => request.path.endsWith(':watch')).length, 1);
    });
    await own.stop();
  });
  test('that asks for a token gets it with every call, and no storage outlives the tab', async () => {
    const own = await live({switches: {needToken: 'secret-1'}});
    await visit(`${own.url}/#/jobs`, {origin: own.url}, async (page) => {
      await page.getByText('who are you').waitFor();
      await page.getByRole('button', {name: 'Token'}).click();
      await page.getByRole('textbox', {name: 'Token'}).fill('secret-1');
      await page.getByRole('button', {name: 'Use it'}).click();
      await page.getByRole('link', {name: 'llama-3bit', exact: true}).waitFor();
      assert.deepEqual(await page.evaluate(() => [sessionStorage.getItem('uniquanf-token'), JSON.stringify(localStorage), document.cookie]), ['secret-1', '{}', '']);
      assert.ok(!page.url().includes('secret'));
    });
    await own.stop();
  });
  test('gets a job as it was typed', async () => {
    const own = await live();
    await visit(`${own.url}/#/submit`, {origin: own.url}, async (page) => {
      await page.getByRole('button', {name: 'Submit', exact: true}).click();
      await page.getByText('[INVALID_SPEC]').waitFor();
      await page.getByText('job.spec.model_uri').waitFor();
      await page.getByLabel('model_uri').fill('file:///models/x');
      await page.getByLabel('bits', {exact: true}).fill('3');
      await page.getByLabel('method', {exact: true}).selectOption('gptq');
      await page.getByText('The job: name').click();
      await page.getByLabel('Name', {exact: true}).fill('typed');
      await page.getByLabel('Labels').fill('a=b, c=d');
      await page.getByRole('button', {name: 'Only check'}).click();
      await page.getByText('The job is valid; nothing was created.').waitFor();
      await page.getByRole('button', {name: 'Submit', exact: true}).click();
      await page.waitForURL(/#\/jobs\/typed$/);
      const sent = JSON.parse(own.requests.filter((request) => request.method === 'POST').at(-1).body);
      assert.deepEqual(sent, {spec: {model_uri: 'file:///models/x', method: 'GPTQ', bits: '3'}, labels: {a: 'b', c: 'd'}});
    });
    await own.stop();
  });
});

describe('markup', () => {
  test('in every name is shown as text', async () => {
    const own = await live({text: markup});
    for (const [name, url, origin] of pagesOf(own, folder).filter(([name]) => name !== 'report')) {
      await visit(url, {origin}, async (page) => {
        await page.locator('main h1').first().waitFor();
        await page.waitForTimeout(600);
        assert.deepEqual(await page.evaluate(() => [markupRan, document.querySelectorAll('main img').length, document.querySelectorAll('main script').length]), [[], 0, 0], name);
        if (name === 'job-done') assert.ok((await text(page)).includes('<img src=x'), 'the name is there, as text');
      });
    }
    await own.stop();
  });
  test('in a report is shown as text', () => visit(fillReport(path.join(folder, 'markup.html'), sampleReport({text: markup})), {origin: 'file:'}, async (page) => {
    await page.getByText('Modules, the worst first').waitFor();
    assert.deepEqual(await page.evaluate(() => [markupRan, document.querySelectorAll('main img, main script').length]), [[], 0]);
    assert.ok((await text(page, 'h1')).includes('<img src=x'));
  }));
});

describe('a report', () => {
  test('has title, verdict, parts, worst modules, curves, settings, command and samples', () => visit(fillReport(path.join(folder, 'whole.html')), {origin: 'file:'}, async (page) => {
    await page.getByText('Modules, the worst first').waitFor();
    assert.equal(await page.title(), 'Llama-3.1-8B – quantization report');
    const shown = await text(page);
    for (const part of ['noticeably worse', 'codes', 'embedding, head', 'The capital of Norway', '--model=MODEL', '--override=', 'sha-256', 'uniquanf 0.1.0', '12 channels folded', 'stored as it began', '2026-11-27']) {
      assert.ok(shown.toLowerCase().includes(part.toLowerCase()), part);
    }
    assert.equal(await page.getByLabel('Highlight').locator('option').count(), 33);
    const rows = page.getByRole('region', {name: 'Modules', exact: true}).locator('tbody tr');
    assert.equal(await rows.count(), 10);
    await page.getByRole('button', {name: 'Show all 225'}).click();
    assert.equal(await rows.count(), 225);
    await page.getByRole('button', {name: /^Module/}).click();
    assert.match(await rows.first().innerText(), /^lm_head/);
  }));
  test('without evaluation or curves has no empty parts', async () => {
    const data = sampleReport();
    data.report = {...data.report, perplexity_before: null, perplexity_after: null, quality: null, warnings: []};
    data.layers = data.layers.map((layer) => ({...layer, loss_curve: []}));
    await visit(fillReport(path.join(folder, 'bare.html'), data), {origin: 'file:'}, async (page) => {
      await page.getByText('Quality was not measured').waitFor();
      const shown = await text(page);
      for (const part of ['Loss while', 'What both write', 'warning', 'NaN', 'undefined', 'null']) assert.ok(!shown.includes(part), part);
    });
  });
  test('that is none says so', () => visit(fillReport(path.join(folder, 'none.html'), {}), {origin: 'file:'}, async (page) => {
    await page.getByText('This file holds no report.').waitFor();
  }));
});
