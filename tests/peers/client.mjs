// An MCP client of the official TypeScript SDK, or of the AI SDK: plays one session and tells how each call ended.
//
//     node client.mjs URL streamable-http|sse legacy|auto CALLS
//     node client.mjs COMMAND stdio legacy|auto CALLS
//     node client.mjs URL ai-sdk-http|ai-sdk-sse auto CALLS
//
// Runs in the directory that has the packages. CALLS and the line that it prints are those of client.py; a call may be
// `alone`. COMMAND is a list: a program that speaks MCP over its standard input and output, and its arguments.

import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const [address, transportName, mode, plan] = process.argv.slice(2);
const headers = { "x-customer-id": "acme", "x-agent-id": `${transportName}-${mode}` };

function transport() {
    if (transportName === "stdio") {
        const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");
        const [command, ...args] = JSON.parse(address);
        return new StdioClientTransport({ command, args, env: process.env, stderr: "ignore" });
    }
    const { SSEClientTransport, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");
    const Transport = transportName === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
    return new Transport(new URL(address), { requestInit: { headers } });
}

/** The official SDK: what makes a call, what closes the session, and the protocol's version. */
async function official() {
    const { Client } = require("@modelcontextprotocol/client");
    const client = new Client({ name: "peer", version: "1.0.0" }, { versionNegotiation: { mode } });
    const connection = transport();
    await client.connect(connection);
    return {
        call: (name, args) => client.callTool({ name, arguments: args }, { onprogress: () => {} }),
        close: async () => {
            await connection.terminateSession?.().catch((error) => {
                // A server may have no route for DELETE.
                if (error.data?.status !== 404) throw error;
            });
            await client.close();
        },
        protocol: client.getNegotiatedProtocolVersion(),
    };
}

/** The AI SDK: the same. */
async function aiSdk() {
    const { createMCPClient } = require("@ai-sdk/mcp");
    const type = transportName.replace("ai-sdk-", "");
    const client = await createMCPClient({ transport: { type, url: address, headers } });
    return {
        call: (name, args) => client.callTool({ name, arguments: args }),
        close: () => client.close(),
        protocol: client.initializeResult.protocolVersion,
    };
}

const { call, close, protocol } = await (transportName.startsWith("ai-sdk-") ? aiSdk() : official());

async function outcome({ tool, arguments: given }) {
    try {
        return (await call(tool, given)).isError ? "ERROR" : "SUCCESS";
    } catch (error) {
        return String(error.code);
    }
}

// All at the same time, but a call that is to be `alone` comes after those before it, and ends before those behind it.
const outcomes = [];
for (const call of JSON.parse(plan)) {
    if (call.alone) await Promise.all(outcomes);
    outcomes.push(outcome(call));
    if (call.alone) await outcomes.at(-1);
}
console.log(JSON.stringify({ protocol, outcomes: await Promise.all(outcomes) }));
await close();
process.exit(0);
