// What no SDK's client does, with a session of 2025-11-25 and plain HTTP.
//
//     node raw.mjs URL replay   leaves a call after its priming event and fetches the answer twice
//     node raw.mjs URL task     makes a call that becomes a task and fetches its result twice
//
// Prints a line for each time that the answer came: {"answer": ...}.

const [url, what] = process.argv.slice(2);
const headers = {
    accept: "application/json, text/event-stream",
    "content-type": "application/json",
    "x-customer-id": "acme",
    "x-agent-id": "raw",
};
let id = 0;

const post = (body, signal) =>
    fetch(url, { method: "POST", headers, body: JSON.stringify({ jsonrpc: "2.0", ...body }), signal });

/** The events of a stream: [id, data]. */
async function* events(response) {
    let rest = "";
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        const parts = (rest + chunk).split("\n\n");
        rest = parts.pop();
        for (const part of parts) {
            const field = (name) => part.match(new RegExp(`^${name}: ?(.*)$`, "m"))?.[1];
            yield [field("id"), field("data")];
        }
    }
}

async function answer(response, wanted) {
    for await (const [, data] of events(response)) {
        const message = JSON.parse(data || "null");
        if (message?.id === wanted && (message.result || message.error)) return message;
    }
    throw new Error(`no answer to ${wanted}`);
}

async function request(method, params) {
    const wanted = ++id;
    return answer(await post({ id: wanted, method, params }), wanted);
}

const tell = (message) => console.log(JSON.stringify({ answer: message.result ?? message.error }));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function replay() {
    const leave = new AbortController();
    const wanted = ++id;
    const params = { name: "trigger-long-running-operation", arguments: { duration: 1, steps: 2 } };
    const response = await post({ id: wanted, method: "tools/call", params }, leave.signal);
    const [primed] = (await events(response).next()).value;
    leave.abort();
    await pause(1500);
    // Another call, which this server's store replays too.
    tell(await request("tools/call", { name: "echo", arguments: { message: "between" } }));
    for (let time = 0; time < 2; time++) {
        const resume = { ...headers, accept: "text/event-stream", "last-event-id": primed };
        const stop = new AbortController();
        tell(await answer(await fetch(url, { headers: resume, signal: stop.signal }), wanted));
        stop.abort();
        await pause(200);
    }
}

async function task() {
    const params = { name: "simulate-research-query", arguments: { topic: "bills" }, task: { ttl: 60000 } };
    const { taskId } = (await request("tools/call", params)).result.task;
    for (let status = ""; status !== "completed"; await pause(300)) {
        ({ status } = (await request("tasks/get", { taskId })).result);
        if (["failed", "cancelled"].includes(status)) throw new Error(`the task is ${status}`);
    }
    tell(await request("tasks/result", { taskId }));
    tell(await request("tasks/result", { taskId }));
}

const clientInfo = { name: "raw", version: "1.0.0" };
const params = { protocolVersion: "2025-11-25", capabilities: { tasks: {} }, clientInfo };
const wanted = ++id;
const opened = await post({ id: wanted, method: "initialize", params });
headers["mcp-session-id"] = opened.headers.get("mcp-session-id");
headers["mcp-protocol-version"] = "2025-11-25";
await answer(opened, wanted);
await post({ method: "notifications/initialized" });
await { replay, task }[what]();
const closed = await fetch(url, { method: "DELETE", headers });
if (!closed.ok) throw new Error(`DELETE was answered ${closed.status}`);
process.exit(0);
