// Uploads with a library as its users do, then asks for something else: prints both statuses.
const [library, url, size] = process.argv.slice(-3);
const body = Buffer.alloc(Number(size), "x");
const fields = { "X-Ads-Account": "acme", "Content-Type": "application/octet-stream" };
const other = { "X-Ads-Account": "nobody" };

const clients = {
  async fetch() {
    const first = await fetch(url, { method: "POST", body, headers: fields });
    await first.arrayBuffer();
    const second = await fetch(url, { headers: other });
    await second.arrayBuffer();
    return [first.status, second.status];
  },
  async axios() {
    const options = { validateStatus: () => true, maxBodyLength: Infinity, maxRedirects: 0 };
    const { default: axios } = await import(require.resolve("axios"));
    const first = await axios.post(url, body, { ...options, headers: fields });
    const second = await axios.get(url, { ...options, headers: other });
    return [first.status, second.status];
  },
  async got() {
    const { default: got } = await import(require.resolve("got"));
    const options = { throwHttpErrors: false, retry: { limit: 0 } };
    const first = await got.post(url, { ...options, body, headers: fields });
    const second = await got(url, { ...options, headers: other });
    return [first.statusCode, second.statusCode];
  },
};

clients[library]().then(
  (statuses) => console.log(statuses.join(" ")),
  (error) => {
    console.log(String(error), String(error.cause ?? ""));
    process.exit(1);
  },
);
