import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { frame } from "../src/index.ts";
import { failure, message, pass, set } from "./set.ts";

const { Op } = frame;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_700_000_000_000 });
});
afterEach(() => {
  vi.useRealTimers();
});

describe("connecting", () => {
  it("authenticates and tells the session", async () => {
    const { net, connection, states } = await set({ rooms: ["chat://1"], accepts: [1000] });
    expect(net.last.accept()).toEqual({ token: "t1", rooms: ["chat://1"], accepts: [1000] });
    expect(states.map((s) => s.name)).toEqual(["connecting", "online"]);
    expect(connection.session).toMatchObject({ uid: "ann", key: "k", connection: "c.ws://a/sub" });
    expect([...connection.rooms]).toEqual(["chat://1"]);
  });

  it("gives up a server that doesn't answer, and tries again", async () => {
    const { net, connection } = await set({ handshakeTimeout: 3000 });
    net.last.open();
    await pass(3000);
    expect(net.last.closed).toBe(true);
    expect(connection.state).toMatchObject({ name: "waiting", attempt: 1 });
    await pass(250);
    expect(net.sockets).toHaveLength(2);
  });

  it("waits longer from try to try, asks for the URL each time, and starts anew after a good session", async () => {
    const url = vi.fn((attempt: number) => `ws://${attempt}/sub`);
    const { net, connection } = await set({ url });
    for (const wait of [250, 500, 1000, 2000]) {
      net.last.end();
      expect(connection.state).toMatchObject({ name: "waiting", until: Date.now() + wait });
      const before = net.sockets.length;
      await pass(wait - 1);
      expect(net.sockets).toHaveLength(before);
      await pass(1);
      expect(net.sockets).toHaveLength(before + 1);
    }
    expect(url.mock.calls).toEqual([[0], [1], [2], [3], [4]]);
    net.last.accept();
    await pass(20_000);
    net.last.end();
    expect(connection.state).toMatchObject({ name: "waiting", attempt: 1, until: Date.now() + 250 });
  });

  it("doesn't storm a server that takes everybody in and throws them out again", async () => {
    const { net, connection } = await set();
    for (let i = 0; i < 8; i++) {
      net.last.accept();
      net.last.end(1011);
      const { state } = connection;
      if (state.name !== "waiting") throw new Error(state.name);
      await pass(state.until - Date.now());
    }
    net.last.accept();
    net.last.end(1011);
    expect(connection.state).toMatchObject({ until: Date.now() + 15_000 });
  });

  it("names the old connection after a break, so that it isn't counted twice", async () => {
    const { net } = await set();
    net.last.accept();
    net.last.end();
    await pass(250);
    expect(net.last.accept()).toMatchObject({ resume: { replaces: "c.ws://a/sub" } });
  });

  it("tries at once when the network comes back, and doubts the connection when it goes", async () => {
    const target = new EventTarget();
    vi.stubGlobal("addEventListener", target.addEventListener.bind(target));
    vi.stubGlobal("removeEventListener", target.removeEventListener.bind(target));
    const { net, connection } = await set();
    vi.unstubAllGlobals();
    net.last.end();
    target.dispatchEvent(new Event("online"));
    await pass();
    expect(net.sockets).toHaveLength(2);
    net.last.accept();
    target.dispatchEvent(new Event("offline"));
    net.last.take(Op.Heartbeat);
    await pass(3000);
    expect(connection.state).toMatchObject({ name: "waiting", error: { code: "unavailable" } });
  });

  it("waits as long as the server says, even when the network comes back meanwhile", async () => {
    const target = new EventTarget();
    vi.stubGlobal("addEventListener", target.addEventListener.bind(target));
    vi.stubGlobal("removeEventListener", target.removeEventListener.bind(target));
    const { net, connection } = await set();
    vi.unstubAllGlobals();
    net.last.open();
    net.last.frame(Op.AuthReply, 1, { error: { code: "unavailable", message: "no Redis", retry: true, retry_after_ms: 7000 } });
    expect(connection.state).toMatchObject({ name: "waiting", until: Date.now() + 7250, error: { code: "unavailable" } });
    target.dispatchEvent(new Event("online"));
    await pass(7249);
    expect(net.sockets).toHaveLength(1);
    await pass(1);
    expect(net.sockets).toHaveLength(2);
  });

  it("takes the last event's error for the reason of the end", async () => {
    const { net, connection } = await set();
    net.last.accept();
    net.last.event({ closing: { error: { code: "rate_limited", message: "slowly", retry: true, retry_after_ms: 2000 } } });
    net.last.end(4501);
    expect(connection.state).toMatchObject({ name: "waiting", until: Date.now() + 2250, error: { code: "rate_limited" } });
  });

  it.each(["kicked", "replaced", "too_many_sessions", "forbidden"])("stays away after %s", async (code) => {
    const { net, connection } = await set();
    net.last.accept();
    net.last.event({ closing: { error: { code, message: code, retry: false } } });
    net.last.end(4008);
    expect(connection.state).toMatchObject({ name: "closed", error: { code } });
    await pass(120_000);
    expect(net.sockets).toHaveLength(1);
  });

  it("retries at once when asked to", async () => {
    const { net, connection } = await set();
    net.last.end();
    connection.retryNow();
    await pass();
    expect(net.sockets).toHaveLength(2);
    await pass(1000);
    expect(net.sockets).toHaveLength(2);
  });

  it("ends when the URL is none", async () => {
    const { connection } = await set({ url: "nonsense" });
    expect(connection.state).toMatchObject({ name: "closed" });
  });

  it("can be closed while the token is still on its way, and connected again", async () => {
    let give = (_: string) => {};
    const { net, connection, states } = await set({ token: () => new Promise<string>((resolve) => (give = resolve)) });
    connection.close();
    give("late");
    await pass(60_000);
    expect(net.sockets).toHaveLength(0);
    connection.connect();
    await pass();
    give("t2");
    await pass();
    expect(net.last.accept()).toEqual({ token: "t2" });
    expect(states.map((s) => s.name)).toEqual(["connecting", "closed", "connecting", "online"]);
  });

  it("leaves no timer behind when closed", async () => {
    const { net, connection } = await set({ token: () => "t" });
    net.last.accept({ expires_at: Date.now() + 60_000 });
    net.last.event({ go_away: { grace_ms: 1000 } });
    connection.close();
    expect(net.last.closed).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("heartbeats", () => {
  it("go out as the server advises, and tell the round trip", async () => {
    const { net, connection } = await set();
    const trips: number[] = [];
    connection.on("roundTrip", (ms) => trips.push(ms));
    net.last.accept({ heartbeat: 20 });
    for (let i = 0; i < 3; i++) {
      await pass(i === 0 ? 20_000 : 20_000 - 12);
      const beat = net.last.take(Op.Heartbeat);
      await pass(12);
      net.last.frame(Op.HeartbeatReply, beat.seq);
    }
    expect(trips).toEqual([0, 12, 12, 12]);
  });

  it("that stay unanswered end the connection", async () => {
    const { net, connection } = await set({ heartbeatTimeout: 4000 });
    net.last.accept({ heartbeat: 20 });
    await pass(20_000 + 3999);
    expect(connection.state.name).toBe("online");
    await pass(1);
    expect(connection.state).toMatchObject({ name: "waiting", error: { code: "unavailable" } });
  });
});

describe("requests", () => {
  it("get their own answers, in any order", async () => {
    const { net, connection } = await set();
    net.last.accept();
    const join = connection.request("room.join", { room: "chat://1" });
    const page = connection.request("room.members", { room: "chat://1" }, { op: Op.RequestUnordered });
    await pass();
    const [first, second] = [net.last.take(Op.Request), net.last.take(Op.RequestUnordered)];
    expect(first.json).toEqual({ "room.join": { room: "chat://1" } });
    net.last.frame(Op.Reply, second.seq, { "room.members": { uids: ["ann"], count: 1 } });
    net.last.frame(Op.Reply, first.seq, { "room.join": { room: "chat://1" } });
    expect(await join).toEqual({ room: "chat://1" });
    expect(await page).toEqual({ uids: ["ann"], count: 1 });
  });

  it("are rejected with what the server says", async () => {
    const { net, connection } = await set();
    net.last.accept();
    const asked = failure(connection.request("room.join", { room: "conversation://1" }));
    await pass();
    net.last.answer({ error: { code: "room_reserved", message: "no", retry: false } });
    expect(await asked).toMatchObject({ code: "room_reserved", message: "no", retry: false });
  });

  it("end in unknown when not answered in time, and a late answer does nothing", async () => {
    const { net, connection } = await set({ requestTimeout: 2000 });
    net.last.accept();
    const asked = failure(connection.request("room.send", { room: "chat://1", body: 1 }));
    await pass(2000);
    expect(await asked).toMatchObject({ code: "unknown", retry: true });
    net.last.answer({ "room.send": { id: "1" } });
    expect(connection.state.name).toBe("online");
  });

  it("end in unknown when the connection breaks", async () => {
    const { net, connection } = await set();
    net.last.accept();
    const asked = failure(connection.request("room.send", { room: "chat://1", body: 1 }));
    await pass();
    net.last.end();
    expect(await asked).toMatchObject({ code: "unknown" });
  });

  it("wait for a connection, and end in unavailable if none comes", async () => {
    const { net, connection } = await set({ requestTimeout: 2000 });
    const patient = connection.request("room.join", { room: "chat://1" });
    await pass(1000);
    net.last.accept();
    await pass();
    net.last.answer({ "room.join": { room: "chat://1" } });
    expect(await patient).toEqual({ room: "chat://1" });
    net.last.end();
    const asked = failure(connection.request("room.join", { room: "chat://1" }, { timeout: 100 }));
    await pass(100);
    expect(await asked).toMatchObject({ code: "unavailable" });
  });

  it("that are too large are not sent", async () => {
    const { net, connection } = await set();
    net.last.accept();
    expect(await failure(connection.request("room.send", { room: "chat://1", body: "x".repeat(300_000) }))).toMatchObject({ code: "too_large" });
    expect(net.last.sent).toEqual([]);
  });

  it("are rejected with closed at close()", async () => {
    const { net, connection } = await set();
    net.last.accept();
    const asked = failure(connection.request("room.join", { room: "chat://1" }));
    await pass();
    connection.close();
    expect(await asked).toMatchObject({ code: "closed" });
    expect(await failure(connection.request("room.join", { room: "chat://1" }))).toMatchObject({ code: "closed" });
  });

  it("estimate the server's clock by their answers", async () => {
    const { net, connection } = await set();
    net.last.accept({ server_time: Date.now() + 5000 });
    expect(connection.clock.offset).toBe(5000);
  });
});

describe("what comes", () => {
  it("is handed over in order, batches and single frames alike", async () => {
    const { net, got } = await set();
    net.last.accept();
    net.last.batch({ body: message("1") }, { op: 1000, body: "p" }, { body: message("2") });
    net.last.frame(Op.Event, 0, message("3"));
    expect(got).toEqual([message("1"), [1000, "p"], message("2"), message("3")]);
  });

  it("is dropped when its id came before, over a reconnect too", async () => {
    const { net, got } = await set();
    net.last.accept();
    net.last.event(message("1"), message("1"));
    net.last.end();
    await pass(250);
    net.last.accept();
    net.last.event(message("1"), message("2"));
    expect(got).toEqual([message("1"), message("2")]);
  });

  it.each([
    ["no frame", new Uint8Array(3)],
    ["a cut frame", frame.encode(1000, 0, new Uint8Array(9)).subarray(0, 20)],
    ["an event that is no JSON", frame.encode(Op.Event, 0, new TextEncoder().encode("{"))],
  ])("ends the connection for good if it is %s", async (_, bytes) => {
    const { net, connection } = await set();
    net.last.accept();
    net.last.raw(bytes);
    expect(net.last.closed).toBe(true);
    expect(connection.state).toMatchObject({ name: "closed", error: { code: "invalid_frame" } });
  });

  it("does not end the connection if a listener throws", async () => {
    const { net, connection, got } = await set();
    vi.spyOn(globalThis, "queueMicrotask").mockImplementation(() => {});
    net.last.accept();
    connection.on("event", () => {
      throw new SyntaxError("listener");
    });
    net.last.event(message("1"), message("2"));
    expect(got).toHaveLength(2);
    expect(connection.state.name).toBe("online");
  });
});

describe("rooms", () => {
  it("are joined again after a reconnect, those that were left are not", async () => {
    const { net, connection } = await set();
    net.last.accept();
    for (const room of ["chat://1", "chat://2"]) {
      const joined = connection.join(room);
      await pass();
      net.last.answer({ "room.join": { room } });
      await joined;
    }
    const left = connection.leave("chat://1");
    await pass();
    net.last.answer({ "room.leave": { room: "chat://1" } });
    await left;
    net.last.end();
    await pass(250);
    expect(net.last.accept().rooms).toEqual(["chat://2"]);
  });

  it("that the server doesn't give back are told as lost", async () => {
    const { net, connection } = await set({ rooms: ["chat://1", "chat://2"] });
    const sessions: unknown[] = [];
    connection.on("session", ({ lost, first }) => sessions.push({ lost, first }));
    net.last.accept({ rooms: ["chat://2"] });
    expect(sessions).toEqual([{ lost: ["chat://1"], first: true }]);
    expect([...connection.rooms]).toEqual(["chat://2"]);
  });

  it("beyond what an auth frame takes are joined one by one", async () => {
    const rooms = Array.from({ length: 100 }, (_, i) => `chat://${"x".repeat(60)}-${i}`);
    const { net, connection } = await set({ rooms });
    const first = net.last.accept().rooms ?? [];
    expect(first.length).toBeGreaterThan(10);
    for (const room of rooms.slice(first.length)) {
      expect(net.last.answer({ "room.join": { room } })).toEqual({ "room.join": { room } });
    }
    expect([...connection.rooms].sort()).toEqual([...rooms].sort());
  });

  it("whose join broke off with the connection are joined over the next one", async () => {
    const { net, connection } = await set();
    net.last.accept();
    const joined = connection.join("chat://1");
    await pass();
    net.last.end();
    await pass(250);
    net.last.accept();
    await pass();
    net.last.answer({ "room.join": { room: "chat://1" } });
    await joined;
    expect([...connection.rooms]).toEqual(["chat://1"]);
  });
});
