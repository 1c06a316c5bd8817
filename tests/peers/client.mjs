// An MCP client of the official TypeScript SDK: plays one session and tells how each call ended.
//
//     node client.mjs URL streamable-http|sse legacy|auto CALLS
//
// Runs in the directory that has the packages. CALLS and the line that it prints are those of client.py.

import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { Client, SSEClientTransport, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");

const [url, transportName, mode, plan] = process.argv.slice(2);
const headers = { "x-customer-id": "acme", "x-agent-id": `typescript-${mode}` };
const Transport = transportName === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
const transport = new Transport(new URL(url), { requestInit: { headers } });
const client = new Client({ name: "peer", version: "1.0.0" }, { versionNegotiation: { mode } });

async function call({ tool, arguments: given }) {
    try {
        const result = await client.callTool({ name: tool, arguments: given }, { onprogress: () => {} });
        return result.isError ? "ERROR" : "SUCCESS";
    } catch (error) {
        return String(error.code);
    }
}

await client.connect(transport);
const outcomes = await Promise.all(JSON.parse(plan).map(call));
console.log(JSON.stringify({ protocol: client.getNegotiatedProtocolVersion(), outcomes }));
await transport.terminateSession?.();
await client.close();
process.exit(0);
