import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type ConnectionOptions, frame } from "../src/index.ts";
import { message, pass, set } from "./set.ts";

const { Op } = frame;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_700_000_000_000 });
});
afterEach(() => {
  vi.useRealTimers();
});

describe("go_away", () => {
  async function moving(options: Partial<ConnectionOptions> = {}) {
    const all = await set({ rooms: ["chat://1"], ...options });
    const old = all.net.last;
    old.accept();
    old.event({ go_away: { url: "ws://b/sub", grace_ms: 10_000 } });
    await pass(500); // half of the jitter of at most a second
    return { ...all, old, next: all.net.last };
  }

  it("opens the new connection before it leaves the old one", async () => {
    const { connection, old, next, net } = await moving();
    expect(net.sockets).toHaveLength(2);
    expect(next.url).toBe("ws://b/sub");
    expect(old.closed).toBe(false);
    expect(connection.state).toMatchObject({ name: "online", moving: true });
    expect(next.accept()).toMatchObject({ rooms: ["chat://1"], resume: { replaces: "c.ws://a/sub" } });
    expect(connection.state).toMatchObject({ name: "online", moving: false, session: { url: "ws://b/sub" } });
    expect(old.closed).toBe(false);
  });

  it("uses the same URL when none is named", async () => {
    const { net } = await set();
    net.last.accept();
    net.last.event({ go_away: {} });
    await pass();
    expect(net.sockets.map((s) => s.url)).toEqual(["ws://a/sub", "ws://a/sub"]);
  });

  it("asks for another URL than the first one's when none is named", async () => {
    const { net } = await set({ url: (attempt) => `ws://${attempt}/sub` });
    net.last.accept();
    net.last.event({ go_away: {} });
    await pass();
    expect(net.sockets.map((s) => s.url)).toEqual(["ws://0/sub", "ws://1/sub"]);
  });

  it("holds what comes on the new connection until the old one has ended", async () => {
    const { old, next, got } = await moving();
    const before = got.length;
    next.accept();
    next.event(message("3"));
    old.event(message("1"), message("2"));
    expect(got.slice(before)).toEqual([message("1"), message("2")]);
    old.end(1001);
    next.event(message("4"));
    expect(got.slice(before)).toEqual(["1", "2", "3", "4"].map(message));
  });

  it("holds it for 5 s at most, and drops the old connection then", async () => {
    const { old, next, got } = await moving();
    const before = got.length;
    next.accept();
    next.event(message("1"));
    await pass(4999);
    expect(got).toHaveLength(before);
    await pass(1);
    expect(got.slice(before)).toEqual([message("1")]);
    expect(old.closed).toBe(true);
  });

  it("drops what comes over both", async () => {
    const { old, next, got } = await moving();
    const before = got.length;
    next.accept();
    next.event(message("1"), message("2"));
    old.event(message("1"));
    old.end(1001);
    expect(got.slice(before)).toEqual([message("1"), message("2")]);
  });

  it("sends requests over the new connection, and takes answers from both at once", async () => {
    const { connection, old, next } = await moving();
    const early = connection.request("room.send", { room: "chat://1", body: 1 });
    await pass();
    const early1 = old.take(Op.Request);
    next.accept();
    const late = connection.request("room.send", { room: "chat://1", body: 2 });
    await pass();
    next.answer({ "room.send": { id: "2" } });
    expect(await late).toEqual({ id: "2" });
    old.frame(Op.Reply, early1.seq, { "room.send": { id: "1" } });
    expect(await early).toEqual({ id: "1" });
  });

  it("keeps the old connection while the new one can't be had, and tries again", async () => {
    const { net, connection, old, next } = await moving();
    next.end();
    expect(connection.state).toMatchObject({ name: "online", moving: true });
    await pass(250);
    expect(net.sockets).toHaveLength(3);
    expect(net.last.url).toBe("ws://a/sub");
    net.last.accept();
    old.end(1001);
    expect(connection.state).toMatchObject({ name: "online", moving: false });
  });

  it("goes on with the one being opened when the old one ends first", async () => {
    const { net, connection, old, next } = await moving();
    old.end(1001);
    expect(connection.state.name).toBe("connecting");
    next.accept();
    expect(connection.state.name).toBe("online");
    await pass(20_000);
    expect(net.sockets).toHaveLength(2);
  });

  it("falls back to the ordinary way when the old one ends before the move began", async () => {
    const { net, connection } = await set();
    net.last.accept();
    net.last.event({ go_away: { grace_ms: 10_000 } });
    net.last.end(1001);
    expect(connection.state).toMatchObject({ name: "waiting" });
    await pass(10_000);
    expect(net.sockets).toHaveLength(2);
  });

  it("doesn't lose what was held when the new connection breaks meanwhile", async () => {
    const { connection, next, got } = await moving();
    const before = got.length;
    next.accept();
    next.event(message("1"));
    next.end();
    expect(got.slice(before)).toEqual([message("1")]);
    expect(connection.state.name).toBe("waiting");
  });

  it("carries rooms over that were joined and left while it went on", async () => {
    const { connection, old, next } = await moving();
    next.open();
    const auth = next.take(Op.Auth);
    for (const [change, method] of [[connection.join("chat://2"), "room.join"], [connection.leave("chat://1"), "room.leave"]] as const) {
      await pass();
      old.answer({ [method]: { room: "x" } });
      await change;
    }
    next.frame(Op.AuthReply, auth.seq, { connection: "n", rooms: auth.json.rooms });
    expect(next.take(Op.Request).json).toEqual({ "room.leave": { room: "chat://1" } });
    expect(next.take(Op.Request).json).toEqual({ "room.join": { room: "chat://2" } });
    expect([...connection.rooms]).toEqual(["chat://2"]);
  });
});

describe("tokens", () => {
  it("are renewed before they expire", async () => {
    let n = 1;
    const token = vi.fn(() => `t${n++}`);
    const { net, connection } = await set({ token });
    net.last.accept({ expires_at: Date.now() + 100_000 });
    await pass(30_000);
    net.last.beat();
    await pass(30_000);
    net.last.beat();
    await pass(20_000); // a fifth of its life ahead
    expect(token.mock.calls).toEqual([["connect"], ["expiring"]]);
    const until = Date.now() + 200_000;
    expect(net.last.answer({ "session.refresh": { expires_at: until } })).toEqual({ "session.refresh": { token: "t2" } });
    await pass();
    expect(connection.session?.expiresAt).toBe(until);
    net.last.end();
    await pass(250);
    expect(net.last.accept().token).toBe("t2");
  });

  it("are asked for again when the renewal failed", async () => {
    let fail = true;
    const token = vi.fn((reason: string) => {
      if (reason === "expiring" && fail) throw new Error("offline");
      return "t";
    });
    const { net } = await set({ token });
    net.last.accept({ expires_at: Date.now() + 20_000 });
    await pass(16_000);
    fail = false;
    await pass(1000);
    expect(net.last.answer({ "session.refresh": { expires_at: 0 } })).toEqual({ "session.refresh": { token: "t" } });
  });

  it("that were refused are replaced once, then it is over", async () => {
    const token = vi.fn((reason: string) => reason);
    const { net, connection } = await set({ token });
    net.last.accept({ error: { code: "token_expired", message: "old", retry: false } });
    await pass();
    expect(net.sockets).toHaveLength(2);
    expect(net.last.accept({ error: { code: "token_expired", message: "old", retry: false } }).token).toBe("refused");
    await pass(60_000);
    expect(net.sockets).toHaveLength(2);
    expect(connection.state).toMatchObject({ name: "closed", error: { code: "token_expired" } });
  });

  it("that ended the session are replaced", async () => {
    const { net, connection } = await set({ token: (reason) => reason });
    net.last.accept();
    await pass(20_000);
    net.last.event({ closing: { error: { code: "token_expired", message: "", retry: false } } });
    net.last.end(4002);
    await pass();
    expect(net.last.accept().token).toBe("refused");
    expect(connection.state.name).toBe("online");
  });

  it("that can't be replaced end it", async () => {
    const { net, connection } = await set({ token: "fixed" });
    net.last.accept({ error: { code: "token_revoked", message: "", retry: false } });
    expect(connection.state).toMatchObject({ name: "closed", error: { code: "token_revoked" } });
  });

  it("whose life is longer than a timer can wait are left alone", async () => {
    const token = vi.fn(() => "t");
    const { net } = await set({ token });
    net.last.accept({ expires_at: Date.now() + 90 * 86_400_000, heartbeat: 1e6 });
    await pass(86_400_000);
    expect(token).toHaveBeenCalledOnce();
  });
});
