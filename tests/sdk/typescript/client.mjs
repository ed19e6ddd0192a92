// The TypeScript SDK, driven by tests/official_sdks.rs.
//
// Each line of standard input is a command, each line of standard output something that happened, both JSON:
//
//   {"id":1,"do":"subscribe","transport":0,"method":"userFills","parameters":{..}}
//                                                 {"id":1,"done":null} when acknowledged; {"id":1,"message":{..}}
//   {"id":2,"do":"unsubscribe","of":1}            {"id":2,"done":null}
//   {"id":3,"do":"info","over":"http","method":"userFillsByTime","parameters":{..}}     {"id":3,"done":[..]}
//   {"id":4,"do":"listen","transport":0,"channel":"userFills","subscription":{..}}      as `subscribe`
//   {"id":5,"do":"overhear","transport":0}        {"id":5,"done":null}, then {"frame":{..}} for each frame
//   {"id":6,"do":"ask","transport":0,"method":"ping","payload":{..}}                    {"id":6,"done":..}
//
// What fails says {"id":..,"failed":".."}. `subscribe` and `info` are what the SDK's users call; `listen` is the
// transport's own subscribe, which passes fields on that the SDK does not know; `ask` is the function behind
// both, for what the SDK does only by its clock (a ping) or keeps its users from (subscribing twice).

import { createInterface } from "node:readline";
import { HttpTransport, InfoClient, SubscriptionClient, WebSocketTransport } from "@nktkas/hyperliquid";
import { WebSocket } from "undici";

const [baseUrl] = process.argv.slice(2);

// Node has a WebSocket of its own, which is undici's, since its version 22.
const reconnect = {
  WebSocket: globalThis.WebSocket ?? WebSocket,
  // The SDK gives up after three tries, which is less than a daemon needs that is started again.
  maxRetries: 1000,
  reconnectionDelay: 50,
};

const transports = new Map();
const subscriptions = new Map();

function say(what) {
  process.stdout.write(JSON.stringify(what) + "\n");
}

function transport(number) {
  if (!transports.has(number)) {
    const url = `${baseUrl.replace(/^http/, "ws")}/ws`;
    const opened = new WebSocketTransport({ url, reconnect });
    opened.socket.addEventListener("open", () => say({ transport: number, is: "open" }));
    opened.socket.addEventListener("close", () => say({ transport: number, is: "closed" }));
    transports.set(number, opened);
  }
  return transports.get(number);
}

async function subscribed(command, subscription) {
  subscriptions.set(command.id, subscription);
  // Of a subscription that is refused when it is made again after a reconnect.
  subscription.failureSignal.addEventListener("abort", () => {
    say({ id: command.id, lost: String(subscription.failureSignal.reason) });
  });
  return null;
}

async function carryOut(command) {
  const listener = (message) => say({ id: command.id, message });
  switch (command.do) {
    case "subscribe": {
      const client = new SubscriptionClient({ transport: transport(command.transport) });
      return subscribed(command, await client[command.method](command.parameters, listener));
    }
    case "listen": {
      const { channel, subscription } = command;
      // The transport hands its listeners events of the DOM's kind.
      const heard = (event) => listener(event.detail);
      return subscribed(command, await transport(command.transport).subscribe(channel, subscription, heard));
    }
    case "unsubscribe":
      return (await subscriptions.get(command.of).unsubscribe()) ?? null;
    case "info": {
      const over = command.over === "http" ? new HttpTransport({ apiUrl: baseUrl }) : transport(command.over);
      return await new InfoClient({ transport: over })[command.method](command.parameters);
    }
    case "overhear":
      transport(command.transport).socket.addEventListener("message", ({ data }) => {
        say({ frame: JSON.parse(data) });
      });
      return null;
    case "ask":
      return (await transport(command.transport)._postRequest.request(command.method, command.payload)) ?? null;
    default:
      throw new Error(`no such command: ${command.do}`);
  }
}

say({ id: 0, done: null });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  // Commands do not wait for each other, as calls of a user would not.
  carryOut(command).then(
    (done) => say({ id: command.id, done }),
    (error) => say({ id: command.id, failed: `${error.name}: ${error.message}` }),
  );
}
// Standard output is a pipe, which Node writes to at once.
process.exit(0);
