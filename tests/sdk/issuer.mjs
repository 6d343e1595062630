// A real issuer, oidc-provider, on a free port of 127.0.0.1, whose URL is the first line of output.
// GET /test/counts: what was fetched. POST /test/sign: any header and claims, signed by its keys.
// POST /test/rotate: new keys. POST /test/down and /test/up: an outage.
import crypto from "node:crypto";
import http from "node:http";
import Provider from "oidc-provider";

let keys, provider, down = false;
const counts = { discovery: 0, jwks: 0 };
let generation = 0;

const makeKeys = () => {
  generation += 1;
  const rs = crypto.generateKeyPairSync("rsa", { modulusLength: 2048 });
  const es = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { rs, es, ids: { rs: `rs${generation}`, es: `es${generation}` } };
};

const jwk = (kind, key) => ({
  ...keys[kind][key].export({ format: "jwk" }),
  kid: keys.ids[kind],
  use: "sig",
  alg: kind === "rs" ? "RS256" : "ES256",
});

const makeProvider = (issuer) =>
  new Provider(issuer, {
    jwks: { keys: [jwk("rs", "privateKey"), jwk("es", "privateKey")] },
    clients: ["rs", "es"].map((client_id) => ({
      client_id,
      client_secret: "secret",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    })),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource, client) => ({
          scope: "",
          audience: resource.replace("urn:", ""),
          accessTokenTTL: 60,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: client.clientId === "rs" ? "RS256" : "ES256" } },
        }),
      },
    },
  });

const b64 = (text) => Buffer.from(text).toString("base64url");

// `how`: rs, es, none, or hs: an HMAC by the public key of rs.
const sign = ({ header, claims, how }) => {
  const message = `${b64(header)}.${b64(claims)}`;
  const bytes = Buffer.from(message);
  const pem = keys.rs.publicKey.export({ format: "pem", type: "spki" });
  const signature = {
    none: () => Buffer.alloc(0),
    hs: () => crypto.createHmac("sha256", pem).update(bytes).digest(),
    rs: () => crypto.sign("sha256", bytes, keys.rs.privateKey),
    es: () => crypto.sign("sha256", bytes, { key: keys.es.privateKey, dsaEncoding: "ieee-p1363" }),
  }[how]();
  return `${message}.${signature.toString("base64url")}`;
};

const read = async (request) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
};

const server = http.createServer(async (request, response) => {
  const answer = (value) => response.end(JSON.stringify(value));
  switch (request.url) {
    case "/test/counts":
      return answer(counts);
    case "/test/sign":
      return response.end(sign(JSON.parse(await read(request))));
    case "/test/ids":
      return answer(keys.ids);
    case "/test/rotate":
      keys = makeKeys();
      provider = makeProvider(issuer);
      return answer(keys.ids);
    case "/test/down":
    case "/test/up":
      down = request.url === "/test/down";
      return answer({});
  }
  if (request.url === "/.well-known/openid-configuration") counts.discovery += 1;
  if (request.url === "/jwks") counts.jwks += 1;
  if (down) return request.socket.destroy();
  return provider.callback()(request, response);
});

await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
keys = makeKeys();
provider = makeProvider(issuer);
console.log(issuer);
// Ends with the test.
process.stdin.resume().on("end", () => process.exit());
