// An MCP server of the official TypeScript SDK with sessions behind Express, which has a route for POST alone: GET
// and DELETE are answered 404.
//
//     node post_only.mjs
//
// Runs in the directory that has the packages. The lines that it prints are those of server.py; `executed` also has
// the requests that were answered 404, by their method.

import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { setTimeout } from "node:timers/promises";
import { serve } from "./serving.mjs";

const require = createRequire(`${process.cwd()}/`);
const express = require("express");
const { McpServer } = require("@modelcontextprotocol/sdk/server/mcp.js");
const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");

const executed = {};
const sessions = {};

function server() {
    const server = new McpServer({ name: "post-only", version: "1.0.0" });
    for (const tool of ["echo", "fail"]) {
        server.registerTool(tool, { description: tool }, async () => {
            executed[tool] = (executed[tool] ?? 0) + 1;
            await setTimeout(100);
            return { content: [{ type: "text", text: tool }], isError: tool === "fail" };
        });
    }
    return server;
}

async function open() {
    const transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => (sessions[id] = transport),
    });
    await server().connect(transport);
    return transport;
}

const app = express();
app.use(express.json());
app.post("/mcp", async (request, response) => {
    const transport = sessions[request.headers["mcp-session-id"]] ?? (await open());
    await transport.handleRequest(request, response, request.body);
});
app.use(async (request, response) => {
    // The answer to the client's GET comes between its calls.
    while (!executed.echo) await setTimeout(50);
    executed[request.method] = (executed[request.method] ?? 0) + 1;
    response.sendStatus(404);
});
serve(app, executed);
