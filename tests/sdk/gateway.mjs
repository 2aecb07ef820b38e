// A real gateway process, and a runner that notes what passed.

import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Loads a package from where the script that runs this has installed it. */
export const fromTools = createRequire(join(process.env.CAUSEWAY_TEST_MODULES ?? root, "index.js"));

/** Starts `causeway dev`, or `run` with a configuration, on free ports over the repository's own definitions; `stop` ends it and checks its exit code. */
export async function startGateway(config) {
  const binary = process.env.CAUSEWAY_BIN ?? join(root, "target/debug/causeway");
  const mode = config ? ["run", "--config", config, "--log-level", "error"] : ["dev"];
  const flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--access-log", "off"];
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CAUSEWAY_")));
  const child = spawn(binary, [...mode, join(root, "routes"), ...flags], { env, stdio: ["ignore", "pipe", "inherit"] });
  process.on("exit", () => child.kill("SIGKILL"));
  const [line] = await once(createInterface(child.stdout), "line");
  const found = /^listening public=(\S+) admin=(\S+)$/.exec(line);
  if (!found) throw new Error(`no gateway: ${line}`);
  const ended = once(child, "exit");
  const stop = async () => {
    child.kill("SIGTERM");
    const [code] = await ended;
    if (code !== 0) throw new Error(`the gateway ended with ${code}`);
  };
  return { public: found[1], admin: found[2], stop };
}

/** Rejects after ten seconds: nothing in these tests takes one. */
export function soon(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ten seconds`)), 10_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const tests = [];

/** Registers a test; `numbers` are those of the specification's checklist that it proves. */
export function test(name, numbers, body) {
  tests.push({ name, numbers, body });
}

/** Runs every test and writes `PASS name numbers` lines to target/test-results/. */
export async function main(suite, ...given) {
  const lines = [];
  let failed = 0;
  for (const { name, numbers, body } of tests) {
    try {
      await body(...given);
      lines.push(["PASS", `${suite}::${name}`, ...numbers].join(" "));
    } catch (error) {
      failed += 1;
      console.error(`${name}:`, error);
      lines.push(`FAIL ${suite}::${name}`);
    }
  }
  mkdirSync(join(root, "target/test-results"), { recursive: true });
  writeFileSync(join(root, `target/test-results/${suite}.txt`), lines.map((line) => line + "\n").join(""));
  console.log(`${suite}: ${tests.length - failed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}
