// graphile-worker. Settings: "Performance" in its documentation, where concurrentJobs, localQueue and
// completeJobBatchDelay are; bulk is addJobs.
import { PAYLOAD, load, main, request } from "./protocol.mjs";

const { Logger, makeWorkerUtils, run, runMigrations } = load("graphile-worker");
// Else each job is a line.
const options = {
  connectionString: request.dsn,
  logger: new Logger(() => () => {}),
  preset: { worker: request.settings },
};
const payload = (number) => ({ number, text: PAYLOAD });

await main({
  install: () => runMigrations(options),
  async producer() {
    const utils = await makeWorkerUtils(options);
    return {
      one: (number) => utils.addJob("bench", payload(number)),
      many: (numbers) =>
        utils.addJobs(numbers.map((n) => ({ identifier: "bench", payload: payload(n) }))),
      longest: 1000,
      close: () => utils.release(),
    };
  },
  async worker(note) {
    const runner = await run(options, { bench: async ({ number }) => void note(number) });
    return () => runner.stop();
  },
});
