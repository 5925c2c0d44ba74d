// pg-boss. Settings: batchSize, localConcurrency, burstWhenBatchFull and useListenNotify, with notify of
// the queue, in its documentation of work() and of the constructor; bulk is insert.
import { PAYLOAD, load, main, request } from "./protocol.mjs";

const { PgBoss } = load("pg-boss");
const { boss: more = {}, queue = {}, work = {} } = request.settings;
const payload = (number) => ({ number, text: PAYLOAD });

async function open() {
  const boss = new PgBoss({ connectionString: request.dsn, ...more });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  return boss;
}

await main({
  async install() {
    const boss = await open();
    await boss.createQueue("bench", queue);
    await boss.stop();
  },
  async producer() {
    const boss = await open();
    return {
      one: (number) => boss.send("bench", payload(number)),
      many: (numbers) => boss.insert("bench", numbers.map((n) => ({ data: payload(n) }))),
      longest: 1000,
      close: () => boss.stop(),
    };
  },
  async worker(note) {
    const boss = await open();
    await boss.work("bench", work, async (jobs) => {
      for (const job of jobs) note(job.data.number);
    });
    return () => boss.stop();
  },
});
