import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Client } from "../src/index.ts";
import { fakeWebSocket } from "./server.ts";
import { pass } from "./set.ts";

beforeEach(() => {
  vi.useFakeTimers({ now: 1_700_000_000_000 });
});
afterEach(() => {
  vi.useRealTimers();
});

describe("client", () => {
  it("speaks in its own words", async () => {
    const net = fakeWebSocket();
    const client = new Client({ url: "ws://a/sub", token: "t", webSocket: net.webSocket });
    const got: unknown[] = [];
    client.on("message", (m) => got.push(m));
    client.on("members", (m) => got.push(m));
    client.on("presence", (p) => got.push(p));
    client.on("lagged", (n) => got.push(n));
    client.connect();
    await pass();
    net.last.accept();
    const said = client.say("chat://1", { text: "hi" }, { echo: true });
    await pass();
    expect(net.last.answer({ "room.send": { id: "1", server_time: Date.now() } })).toEqual({
      "room.send": { room: "chat://1", body: { text: "hi" }, echo: true },
    });
    expect(await said).toEqual({ id: "1", serverTime: Date.now() });
    net.last.event(
      { "room.message": { id: "1", room: "chat://1", from: "bob", body: "hi", server_time: Date.now() - 7 } },
      { "room.member": { room: "chat://1", left: ["bob"], count: 1 } },
      { presence: { uid: "bob" } },
      { lagged: { dropped: 3 } },
    );
    expect(got).toEqual([
      { id: "1", room: "chat://1", from: "bob", body: "hi", serverTime: Date.now() - 7, latency: 7 },
      { room: "chat://1", joined: [], left: ["bob"], count: 1 },
      { uid: "bob", online: false, platforms: [], lastSeen: 0 },
      3,
    ]);
  });

  it("watches again after a reconnect, and tells what it was answered", async () => {
    const net = fakeWebSocket();
    const client = new Client({ url: "ws://a/sub", token: "t", webSocket: net.webSocket, random: () => 0 });
    client.connect();
    await pass();
    net.last.accept();
    const watched = client.watch(["bob"]);
    await pass();
    net.last.answer({ "presence.watch": { states: [{ uid: "bob" }] } });
    expect(await watched).toMatchObject([{ uid: "bob", online: false }]);
    const told: unknown[] = [];
    client.on("presence", (p) => told.push(p.online));
    net.last.end();
    await pass();
    net.last.accept();
    await pass();
    net.last.answer({ "presence.watch": { states: [{ uid: "bob", online: true }] } });
    await pass();
    expect(told).toEqual([true]);
  });
});
