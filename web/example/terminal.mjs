// A chat in the terminal: node example/terminal.mjs URL TOKEN ME PEER. What you type is sent; what comes is printed.
import { createInterface } from "node:readline";
import { Chat, directId } from "@halley-im/sdk";
import { WebSocket } from "ws"; // Node 22 and browsers have one of their own.

const [url, token, me, peer] = process.argv.slice(2);
const chat = new Chat({ url, token, webSocket: WebSocket });

chat.on("state", ({ name }) => console.log(`-- ${name}`));
chat.on("outgoing", ({ params, stage }) => console.log(`-- ${JSON.stringify(params.body)} is ${stage}`));
chat.on("entries", ({ conversation, entries }) => {
  for (const { kind, from, body } of entries) if (kind === "message") console.log(`${from}: ${body}`);
  chat.read(conversation);
});
chat.start();

const input = createInterface({ input: process.stdin });
input.on("line", (line) => chat.send(directId(me, peer), line));
input.on("close", () => chat.close());
