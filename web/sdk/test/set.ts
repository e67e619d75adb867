import { vi } from "vitest";
import { Connection, type ConnectionOptions, type HalleyError, type State } from "../src/index.ts";
import { fakeWebSocket } from "./server.ts";

/** Lets promises and timers that are due run; the clock is vitest's. */
export const pass = (ms = 0) => vi.advanceTimersByTimeAsync(ms);

/** Makes a connection that is on its way, and notes what it tells. */
export async function set(options: Partial<ConnectionOptions> = {}) {
  const net = fakeWebSocket();
  const connection = new Connection({ url: "ws://a/sub", token: "t1", webSocket: net.webSocket, random: () => 0.5, ...options });
  const states: State[] = [];
  const got: unknown[] = [];
  connection.on("state", (state) => states.push(state));
  connection.on("event", (event) => got.push(event));
  connection.on("push", ({ op, body }) => got.push([op, JSON.parse(new TextDecoder().decode(body))]));
  connection.connect();
  await pass();
  return { net, connection, states, got };
}

export const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => {
      throw new Error("no error");
    },
    (error: HalleyError) => error,
  );

export const message = (id: string) => ({ "room.message": { id, room: "chat://1", from: "bob", body: id } });
