// graphile-worker. Settings: "Performance" in its documentation, where concurrentJobs, localQueue and
// completeJobBatchDelay are; bulk is addJobs.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const read = async () => JSON.parse((await lines.next()).value);
// Awaited before the process ends: a pipe takes a long line in parts.
const answer = (values) =>
  new Promise((done) => process.stdout.write(JSON.stringify(values) + "\n", done));
const now = () => Number(process.hrtime.bigint()) / 1e9;

const request = await read();
// From the folder that it was installed in.
const { Logger, makeWorkerUtils, run, runMigrations } = createRequire(process.env.PEER_HOME + "/")(
  "graphile-worker",
);
const PAYLOAD = "x".repeat(32);
const LIST = 1000;
// Else each job is a line.
const options = {
  connectionString: request.dsn,
  logger: new Logger(() => () => {}),
  preset: { worker: request.settings },
};

const roles = {
  async install() {
    await runMigrations(options);
    await answer({ installed: true });
  },
  async bulk() {
    const utils = await makeWorkerUtils(options);
    answer({ ready: true });
    await read();
    const began = now();
    for (let start = 0; start < request.jobs; start += LIST) {
      const jobs = [];
      for (let number = start; number < Math.min(request.jobs, start + LIST); number++)
        jobs.push({ identifier: "bench", payload: { number, text: PAYLOAD } });
      await utils.addJobs(jobs);
    }
    await answer({ seconds: now() - began });
    await utils.release();
  },
  async work() {
    const ran = [];
    answer({ ready: true });
    await read();
    const runner = await run(options, {
      bench: async (payload) => {
        ran.push(payload.number);
      },
    });
    let told = 0;
    const timer = setInterval(() => {
      if (ran.length !== told) answer({ count: (told = ran.length), at: now() });
    }, 20);
    await read();
    clearInterval(timer);
    await runner.stop();
    await answer({ ran });
  },
};
await roles[request.role]();
process.exit(0);
