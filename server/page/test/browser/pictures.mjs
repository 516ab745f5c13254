// Pictures of every page: node test/browser/pictures.mjs FOLDER [WIDTH...]
import {mkdirSync, writeFileSync, readFileSync} from 'node:fs';
import path from 'node:path';
import {axeFindings, launch, openPage, overflow} from './browser.mjs';
import {fillReport, live, pagesOf} from './setup.mjs';

const [folder = 'test/pictures', ...widths] = process.argv.slice(2);
mkdirSync(folder, {recursive: true});
const server = await live();
const browser = await launch();
let bad = 0;
for (const width of widths.length > 0 ? widths.map(Number) : [360, 768, 1920]) {
  for (const dark of [false, true]) {
    for (const [name, url, origin] of pagesOf(server, folder)) {
      const {page, trouble, close} = await openPage(browser, {width, dark, origin});
      await page.goto(url);
      await page.waitForTimeout(900);
      const findings = [...trouble, ...(await axeFindings(page)), ...(await overflow(page)).map((line) => `sticks out: ${line}`)];
      await page.screenshot({path: path.join(folder, `${name}-${width}-${dark ? 'dark' : 'light'}.png`), fullPage: true});
      if (findings.length > 0) { ++bad; console.log(`${name} ${width} ${dark ? 'dark' : 'light'}\n  ${findings.join('\n  ')}`); }
      await close();
    }
  }
}
await browser.close();
await server.stop();
console.log(bad ? `${bad} pages with findings` : 'no findings');
