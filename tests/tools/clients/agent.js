// An MCP agent: lists the tools of the server at the address given, then makes each call given as
// `tool=argument`, and goes on after an error. Prints one line each.
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");

const [url, key, ...calls] = process.argv.slice(-(process.argv.length - 2));

async function run() {
  const client = new Client({ name: "agent", version: "1" });
  const requestInit = { headers: { "X-Ads-Key": key } };
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
  const { tools } = await client.listTools();
  console.log("tools", tools.map((tool) => tool.name).join(" "));
  for (const call of calls) {
    const [name, inner] = call.split("=");
    const args = inner ? { tool_name: inner, arguments: {} } : {};
    try {
      const result = await client.callTool({ name, arguments: args });
      console.log("result", result.content[0].text);
    } catch (error) {
      console.log("error", error.constructor.name, error.code, error.message);
    }
  }
  await client.close();
}

run().catch((error) => {
  console.log("failed", String(error));
  process.exit(1);
});
