// Debian's Chromium: two pages chat through routes/chat.yaml, one gets a push from a back-end, neither can push itself.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

import { fromTools, main, startGateway, test } from "../sdk/gateway.mjs";

const { chromium } = fromTools("playwright-core");
const here = dirname(fileURLToPath(import.meta.url));

/** Serves the page on an origin of its own. */
async function servePage() {
  const page = readFileSync(join(here, "chat.html"));
  const server = createServer((request, response) => {
    response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(page);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { origin: `http://127.0.0.1:${server.address().port}`, server };
}

const heardBy = (page) => page.evaluate(() => heard);

/** Waits until the page has heard a message. */
const hears = (page, text) => page.waitForFunction((text) => heard.includes(text), text, { timeout: 10_000 });

async function pushTo(gateway, id, body, headers = {}) {
  const address = `http://${gateway.public}/chat/dev/@connections/${encodeURIComponent(id)}`;
  return (await fetch(address, { method: "POST", body, headers })).status;
}

async function idOf(page) {
  await page.evaluate(() => say({ action: "whoami" }));
  const told = await page.waitForFunction(() => heard.find((text) => text.includes("connectedAt")), undefined, {
    timeout: 10_000,
  });
  return JSON.parse(await told.jsonValue()).connectionId;
}

test("two_pages_chat_in_a_room", [316], async ({ ann, bob, room }) => {
  for (const { extensions } of [room.ann, room.bob]) {
    const [name, ...parameters] = extensions.split(";").map((part) => part.trim());
    assert.equal(name, "permessage-deflate");
    for (const wanted of ["client_no_context_takeover", "server_no_context_takeover"]) {
      assert.ok(parameters.includes(wanted), extensions);
    }
  }
  const hello = { action: "say", room: "lobby", text: "hello, Bob: grüß dich \u{1F44B}" };
  // Bob's membership may be a moment behind Ann's first word.
  await ann.evaluate(async (hello) => {
    while (!heard.includes(JSON.stringify(hello))) {
      say(hello);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }, hello);
  await bob.evaluate((reply) => say(reply), { action: "say", room: "lobby", text: "hello, Ann" });
  await hears(ann, JSON.stringify({ action: "say", room: "lobby", text: "hello, Ann" }));
  await ann.evaluate((hello) => say(hello), hello);
  await hears(bob, JSON.stringify(hello));
});

test("a_page_receives_pushes_by_connection_id", [184], async ({ ann, bob, gateway }) => {
  const id = await idOf(ann);
  assert.equal(await pushTo(gateway, id, '{"from": "the back-end"}'), 200);
  await hears(ann, '{"from": "the back-end"}');
  assert.ok(!(await heardBy(bob)).includes('{"from": "the back-end"}'));
});

test("large_messages_are_compressed_both_ways", [], async ({ ann, bob, gateway }) => {
  // As large as a message may be, and such that a wrong byte would show.
  const room = { action: "say", room: "lobby" };
  const text = "0123456789 äöü ".repeat(6_000);
  await ann.evaluate((message) => say(message), { ...room, text });
  await hears(bob, JSON.stringify({ ...room, text }));
  const id = await idOf(bob);
  for (const body of [text, randomBytes(90_000).toString("base64"), "x".repeat(131_072)]) {
    assert.equal(await pushTo(gateway, id, body), 200);
    await hears(bob, body);
  }
});

test("a_page_cannot_push", [], async ({ ann, bob, gateway, origin }) => {
  const id = await idOf(bob);
  const address = `http://${gateway.public}/chat/dev/@connections/${encodeURIComponent(id)}`;
  const refused = ann.waitForEvent("response", { predicate: (answer) => answer.url().includes("@connections") });
  // The browser hides the answer from the page, so the test looks at it on the wire.
  const tried = await ann.evaluate((address) => push(address), address);
  assert.match(tried, /^(sent, opaque|failed)/);
  assert.equal((await refused).status(), 403);
  // Order shows that nothing of it came: what a back-end pushes afterwards is what Bob hears next.
  assert.equal(await pushTo(gateway, id, "the back-end again"), 200);
  await hears(bob, "the back-end again");
  assert.ok(!(await heardBy(bob)).includes("from a page"));
  assert.equal(await pushTo(gateway, id, "from a page", { Origin: origin }), 403);
});

test("a_page_is_closed_by_the_back_end", [191], async ({ bob, gateway }) => {
  const id = await idOf(bob);
  const address = `http://${gateway.public}/chat/dev/@connections/${encodeURIComponent(id)}`;
  assert.equal((await fetch(address, { method: "DELETE" })).status, 204);
  const closed = await bob.waitForFunction(() => closed, undefined, { timeout: 10_000 });
  assert.deepEqual(await closed.jsonValue(), { code: 1000, reason: "Connection Closed Normally" });
  assert.equal(await pushTo(gateway, id, "too late"), 410);
});

const gateway = await startGateway();
const { origin, server } = await servePage();
const profile = mkdtempSync(join(tmpdir(), "causeway-browser-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  const pages = {};
  const room = {};
  for (const name of ["ann", "bob"]) {
    pages[name] = await browser.newPage();
    await pages[name].goto(origin);
    const address = `ws://${gateway.public}/chat/dev`;
    room[name] = await pages[name].evaluate((address) => join(address, "lobby"), address);
  }
  await main("browser", { ...pages, room, gateway, origin });
} finally {
  await browser.close();
  server.close();
  rmSync(profile, { recursive: true, force: true });
}
await gateway.stop();
