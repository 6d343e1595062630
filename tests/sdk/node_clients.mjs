// axios and got, unmodified. Arguments: address of the proxy, account, seconds to call on.
import axios from "axios";
import { got } from "got";

const [proxy, account, seconds] = process.argv.slice(-3);
const url = `http://${proxy}/v2/profiles`;
const headers = { authorization: `Bearer Atza|${account}` };
const end = Date.now() + Number(seconds) * 1000;
do {
  const lists = [
    (await axios.get(url, { headers, proxy: false })).data,
    await got(url, { headers, retry: { limit: 0 } }).json(),
  ];
  for (const profiles of lists) {
    if (profiles.length !== 2) throw new Error(JSON.stringify(profiles));
  }
  await new Promise((resume) => setTimeout(resume, 50));
} while (Date.now() < end);
