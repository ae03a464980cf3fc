// Runs requests with the Node SDKs. Reads one JSON object per line and writes one or more for each,
// matched by `id`: {event} for each event of a stream, and at the end {response} or {error}.
import readline from "node:readline";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const KEY = "FAKE-key-that-the-proxy-replaces";
const clients = new Map();

const SDKS = {
  openai: {
    make: (base) => new OpenAI({ baseURL: `${base}/v1`, apiKey: KEY, logLevel: "off" }),
    create: (client, request, options) => client.chat.completions.create(request, options),
    APIError: OpenAI.APIError,
    code: (error) => error.code,
  },
  anthropic: {
    make: (base) => new Anthropic({ baseURL: base, apiKey: KEY, logLevel: "off" }),
    create: (client, request, options) => client.messages.create(request, options),
    APIError: Anthropic.APIError,
    code: (error) => error.error?.error?.type,
  },
};

function say(id, message) {
  process.stdout.write(`${JSON.stringify({ id, ...message })}\n`);
}

function clientFor(sdk, base) {
  const key = `${sdk} ${base}`;
  if (!clients.has(key)) clients.set(key, SDKS[sdk].make(base));
  return clients.get(key);
}

async function models(client) {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  return { response: ids };
}

async function run({ id, op, sdk, base, scenario, retries, timeout, request, cancelAfter }) {
  const client = clientFor(sdk, base);
  const options = { maxRetries: retries, timeout, headers: {} };
  if (scenario) options.headers["x-scenario"] = scenario;
  if (op === "models") return models(client);
  if (op === "whole") return { response: await SDKS[sdk].create(client, request, options) };
  let count = 0;
  for await (const event of await SDKS[sdk].create(client, { ...request, stream: true }, options)) {
    say(id, { event });
    count += 1;
    if (count === cancelAfter) break;
  }
  return {};
}

function described(sdk, error) {
  const { APIError, code } = SDKS[sdk];
  return {
    is_own: error instanceof APIError,
    kind: error?.constructor?.name ?? typeof error,
    message: String(error?.message ?? error),
    status: error?.status ?? null,
    code: code(error) ?? null,
    body: error?.error ?? null,
  };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  run(command).then(
    (result) => say(command.id, { done: true, ...result }),
    (error) => say(command.id, { error: described(command.sdk, error) }),
  );
}
