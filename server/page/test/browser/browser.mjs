// Debian's Chromium through playwright-core, with a watch on everything that a page must not do.
import {existsSync, readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {chromium} from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export function findChromium() {
  return [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path && existsSync(path)) ?? null;
}

export async function launch() {
  return chromium.launch({executablePath: findChromium(), args: ['--no-sandbox', '--disable-gpu', '--font-render-hinting=none']});
}

/**
 * A page of its own. `trouble` collects what must not be: requests to other origins, broken content policies, uncaught errors, dialogs.
 */
export async function openPage(browser, {width = 1280, height = 900, dark = false, origin = '', reducedMotion = 'reduce'} = {}) {
  const context = await browser.newContext({viewport: {width, height}, colorScheme: dark ? 'dark' : 'light', reducedMotion, locale: 'en-US', timezoneId: 'UTC'});
  const page = await context.newPage();
  const trouble = [];
  page.on('request', (request) => {
    const url = request.url();
    if (url.startsWith('data:') || url.startsWith('blob:') || url.startsWith('file:') && origin === 'file:') return;
    if (!origin || !url.startsWith(origin)) trouble.push(`a request left the origin: ${url}`);
  });
  page.on('pageerror', (error) => trouble.push(`an error: ${error.stack ?? error}`));
  page.on('console', (message) => { if (/Content Security Policy|Refused to/i.test(message.text())) trouble.push(`content policy: ${message.text()}`); });
  page.on('dialog', (dialog) => { trouble.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  await page.addInitScript(() => {
    globalThis.markupRan = [];
    document.addEventListener('securitypolicyviolation', (event) => console.error(`Content Security Policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  return {page, context, trouble, close: () => context.close()};
}

/** Serious and critical findings of axe-core, as lines. The policy forbids eval of strings, so it runs in an isolated world. */
export async function axeFindings(page) {
  const session = await page.context().newCDPSession(page);
  const {frameTree} = await session.send('Page.getFrameTree');
  const {executionContextId} = await session.send('Page.createIsolatedWorld', {frameId: frameTree.frame.id, worldName: 'axe', grantUniveralAccess: true});
  const run = async (expression, awaitPromise) => {
    const {result, exceptionDetails} = await session.send('Runtime.evaluate', {expression, contextId: executionContextId, awaitPromise, returnByValue: true});
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  await run(axe, false);
  const json = await run(`axe.run(document, {resultTypes: ['violations']}).then((result) => JSON.stringify(result.violations.map(({id, impact, help, nodes}) => ({id, impact, help, targets: nodes.slice(0, 4).map((node) => node.target.join(' ') + ' ' + node.html.slice(0, 160) + ' ' + (node.any[0]?.message ?? ''))}))))`, true);
  await session.detach();
  return JSON.parse(json).filter((finding) => ['serious', 'critical'].includes(finding.impact))
    .map((finding) => `${finding.impact} ${finding.id}: ${finding.help}\n    ${finding.targets.join('\n    ')}`);
}

/** Elements that stick out of the window to the right: what makes a page scroll sideways. */
export function overflow(page) {
  return page.evaluate(() => (document.documentElement.scrollWidth > innerWidth + 1 ?
    [...document.querySelectorAll('body *')].filter((element) => element.getBoundingClientRect().right > innerWidth + 1 && !element.closest('.scroll, pre'))
      .slice(0, 5).map((element) => `${element.tagName}.${element.className?.baseVal ?? element.className} ${Math.round(element.getBoundingClientRect().right)}`) : []));
}
