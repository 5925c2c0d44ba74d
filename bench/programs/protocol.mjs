// The same as protocol.py, for libraries in JavaScript.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const read = async () => JSON.parse((await lines.next()).value);
// Awaited before the process ends: a pipe takes a long line in parts.
const answer = (values) =>
  new Promise((done) => process.stdout.write(JSON.stringify(values) + "\n", done));
// The clock that Python's time.monotonic() reads.
const now = () => Number(process.hrtime.bigint()) / 1e9;

export const PAYLOAD = "x".repeat(32);
export const request = await read();
// From the folder that it was installed in.
export const load = createRequire(process.env.PEER_HOME + "/");

const ready = async () => {
  answer({ ready: true });
  await read();
};

const enqueue = {
  async bulk({ many, longest }) {
    for (let start = 0; start < request.jobs; start += longest) {
      const numbers = [];
      for (let n = start; n < Math.min(request.jobs, start + longest); n++) numbers.push(n);
      await many(numbers);
    }
  },
  async single({ one }) {
    const each = async (first) => {
      for (let n = first; n < request.jobs; n += request.at_once) await one(n);
    };
    await Promise.all(Array.from({ length: request.at_once }, (_, first) => each(first)));
  },
};

// `start` of a worker gets what its handler calls with a number, and returns what stops it.
export async function main({ install, producer, worker }) {
  if (request.role === "install") {
    await install();
    await answer({ installed: true });
  } else if (request.role in enqueue) {
    const opened = await producer();
    await ready();
    const began = now();
    await enqueue[request.role](opened);
    await answer({ seconds: now() - began });
    await opened.close();
  } else if (request.role === "paced") {
    const opened = await producer();
    await ready();
    for (let number = 0; number < request.jobs; number++) {
      const at = now();
      await opened.one(number);
      answer({ at });
      await read();
    }
    await opened.close();
  } else {
    const ran = [];
    const times = [];
    const note = request.timed
      ? (number) => (times.push(now()), ran.push(number))
      : (number) => ran.push(number);
    await ready();
    const stop = await worker(note);
    let told = 0;
    const timer = setInterval(() => {
      if (ran.length !== told) answer({ count: (told = ran.length), at: now() });
    }, 20);
    await read();
    clearInterval(timer);
    await stop();
    await answer({ ran, times });
  }
  process.exit(0);
}
