// An MCP server of the official TypeScript SDK behind Express whose tools record for whom they ran.
//
//     node priced.mjs
//
// Runs in the directory that has the packages. The lines that it prints are those of priced.py.

import { createRequire } from "node:module";
import { serve } from "./serving.mjs";

const require = createRequire(`${process.cwd()}/`);
const express = require("express");
const { McpServer } = require("@modelcontextprotocol/sdk/server/mcp.js");
const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");

const executed = {};

function server() {
    const server = new McpServer({ name: "priced", version: "1.0.0" });
    for (const tool of ["analyze_x", "lookup_x", "echo"]) {
        server.registerTool(tool, { description: tool }, (extra) => {
            (executed[extra.requestInfo.headers["x-customer-id"]] ??= []).push(tool);
            return { content: [{ type: "text", text: tool }] };
        });
    }
    return server;
}

const app = express();
app.use(express.json({ limit: "8mb" }));
app.post("/mcp", async (request, response) => {
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
    await server().connect(transport);
    await transport.handleRequest(request, response, request.body);
});
app.use((error, _request, response, _next) => response.status(error.status ?? 500).json({ error: error.message }));
serve(app, executed);
