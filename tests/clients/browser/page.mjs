// Somebody at the web page: looks, decides and filters, as a test says line by line on standard
// input. Each line is answered by one of JSON.
//
//   {"do": "look", "width": 390, "height": 844, "dark": true}
//   {"do": "go", "path": "/approvals"}         {"do": "press", "keys": ["Tab", "Enter"]}
//   {"do": "click", "what": "text of it"}      {"do": "type", "into": "#reason", "text": "why"}
//   {"do": "wait", "for": "text"}              {"do": "check", "name": "list"}

import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import puppeteer from 'puppeteer-core';

// A machine that is busy is slow, and not broken.
const PATIENCE = 120_000;

const [url, resolve, shots, scripts] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const browser = await puppeteer.launch({
  executablePath: '/usr/bin/chromium',
  // The issuer's certificate is of a test; what is tried here is the page.
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-quic', `--host-resolver-rules=${resolve}`],
  acceptInsecureCerts: true,
  timeout: PATIENCE,
  protocolTimeout: 2 * PATIENCE,
});
const page = (await browser.pages())[0];
page.setDefaultTimeout(PATIENCE);
await page.setJavaScriptEnabled(scripts !== 'off');
const wrong = [];
let screen = 0;
page.on('pageerror', (error) => wrong.push(String(error)));
page.on('console', (message) => {
  // What the policy of the page forbids is told here.
  if (message.type() === 'error') wrong.push(message.text());
});

const find = (text) =>
  page.waitForSelector(`::-p-xpath(//*[self::a or self::button][contains(normalize-space(.), '${text}')])`, {
    visible: true,
    timeout: PATIENCE,
  });

const acts = {
  async look({ width, height, dark }) {
    screen = width;
    await page.setViewport({ width, height, isMobile: width < 600, hasTouch: width < 600 });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }]);
  },
  async go({ path }) {
    await page.goto(url + path, { waitUntil: 'load' });
  },
  async press({ keys }) {
    for (const key of keys) await page.keyboard.press(key);
  },
  async click({ what }) {
    const found = await find(what);
    await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), found.click()]);
  },
  async enter({ what }) {
    const found = await find(what);
    await found.focus();
    await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), page.keyboard.press('Enter')]);
  },
  async type({ into, text }) {
    await page.type(into, text);
  },
  async select({ into, value }) {
    await page.select(into, value);
  },
  async wait({ for: text }) {
    await page.waitForFunction((text) => document.body.innerText.includes(text), { timeout: PATIENCE }, text);
  },
  // What stands there, whether it fits on the screen, and what a program finds that knows how people use pages.
  async check({ name }) {
    await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
    // A phone shows what is too wide smaller: its own width tells nothing.
    const wide = (await page.evaluate(() => document.documentElement.scrollWidth)) - screen;
    await page.evaluate(axe);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    const serious = found.violations.filter((one) => ['serious', 'critical'].includes(one.impact));
    const told = serious.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(' ')}`);
    const minor = found.violations.filter((one) => !serious.includes(one)).map((one) => one.id);
    return { wide, serious: told, minor, passes: found.passes.length };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer;
  try {
    const more = (await acts[asked.do](asked)) ?? {};
    answer = { ok: true, url: page.url(), text: await page.evaluate(() => document.body.innerText), wrong, ...more };
  } catch (error) {
    const text = await page.evaluate(() => document.body.innerText).catch(() => '');
    answer = { ok: false, error: String(error), url: page.url(), text, wrong };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}
await browser.close();
