// A real issuer, oidc-provider, on a free port of 127.0.0.1, whose URL is the first line of output.
// GET /test/counts: what was fetched. POST /test/sign: any header and claims, signed by its keys.
// POST /test/rotate: new keys. POST /test/down, /test/hang and /test/up: an outage, and its end.
// POST /test/claims: what its ID tokens say in place of their own claims from now on.
// With REDIRECT_URI people sign in: the user `<organisation>-<name>` to the client `web`, `post` or `public`.
import crypto from "node:crypto";
import http from "node:http";
import Provider from "oidc-provider";

// The library says more than the first line, and then nobody reads it.
process.stdout.on("error", () => {});

let keys, provider, down = false, hangs = false, claims = {};
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

// Clients that people sign in to.
const people = () => {
  if (!process.env.REDIRECT_URI) return [];
  const client = { redirect_uris: [process.env.REDIRECT_URI], response_types: ["code"] };
  return [
    { client_id: "web", client_secret: "s3cret of web", ...client },
    {
      client_id: "post",
      client_secret: "s3cret of web",
      token_endpoint_auth_method: "client_secret_post",
      ...client,
    },
    { client_id: "public", token_endpoint_auth_method: "none", ...client },
  ];
};

const makeProvider = (issuer) =>
  new Provider(issuer, {
    jwks: { keys: [jwk("rs", "privateKey"), jwk("es", "privateKey")] },
    clients: [
      ...["rs", "es"].map((client_id) => ({
        client_id,
        client_secret: "secret",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
      })),
      ...people(),
    ],
    // ID tokens hold the claims, as those of most providers do.
    conformIdTokenClaims: false,
    claims: { openid: ["sub", "org_id"] },
    findAccount: (_ctx, sub) => ({
      accountId: sub,
      claims: () => ({ sub, ...(sub.includes("-") && { org_id: sub.split("-")[0] }) }),
    }),
    cookies: { keys: ["of tests"] },
    features: {
      devInteractions: { enabled: true },
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

// Puts `claims` into the ID token of the response.
const change = (response) => {
  const end = response.end.bind(response);
  response.end = (body) => {
    const said = JSON.parse(body);
    if (said.id_token) {
      const own = JSON.parse(Buffer.from(said.id_token.split(".")[1], "base64url"));
      const header = JSON.stringify({ alg: "RS256", kid: keys.ids.rs, typ: "JWT" });
      said.id_token = sign({ how: "rs", header, claims: JSON.stringify({ ...own, ...claims }) });
    }
    const text = JSON.stringify(said);
    response.setHeader("content-length", Buffer.byteLength(text));
    return end(text);
  };
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
    case "/test/claims":
      claims = JSON.parse(await read(request));
      return answer({});
    case "/test/ids":
      return answer(keys.ids);
    case "/test/rotate":
      keys = makeKeys();
      provider = makeProvider(issuer);
      return answer(keys.ids);
    case "/test/down":
    case "/test/hang":
    case "/test/up":
      down = request.url === "/test/down";
      hangs = request.url === "/test/hang";
      return answer({});
  }
  if (request.url === "/.well-known/openid-configuration") counts.discovery += 1;
  if (request.url === "/jwks") counts.jwks += 1;
  if (down) return request.socket.destroy();
  if (hangs) return;
  if (request.url === "/token" && Object.keys(claims).length > 0) change(response);
  return provider.callback()(request, response);
});

await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
keys = makeKeys();
provider = makeProvider(issuer);
console.log(issuer);
// Ends with the test.
process.stdin.resume().on("end", () => process.exit());
