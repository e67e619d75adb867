import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { type Call, type Heard, Phone, type PhoneOptions } from "../../src/call/index.ts";
import { iceServers } from "../../src/call/ice.ts";
import { HalleyError } from "../../src/error.ts";
import { FakeDevices, FakeLine, FakePC, FakeServer } from "./fakes.ts";

let server: FakeServer;
let devices: FakeDevices;
const phones: Phone[] = [];

beforeEach(() => {
  vi.useFakeTimers();
  FakePC.all = [];
  FakePC.blocked = false;
  server = new FakeServer();
  devices = new FakeDevices();
  vi.stubGlobal("navigator", { mediaDevices: devices });
  vi.stubGlobal("RTCPeerConnection", FakePC);
  vi.stubGlobal("MediaStream", class {});
});
afterEach(() => {
  for (const phone of phones.splice(0)) phone.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const settle = (ms = 500) => vi.advanceTimersByTimeAsync(ms);

interface Someone {
  line: FakeLine;
  phone: Phone;
  kept: { value: string | null };
  /** Why calls were over. */
  overs: string[];
  call: Call;
  pc: FakePC;
}

/** A page of somebody's; with kept, his page loaded anew. */
function someone(uid: string, kept: Someone["kept"] = { value: null }): Someone {
  const line = server.line(uid);
  const options: PhoneOptions = { kept: { load: () => kept.value, save: (v) => (kept.value = v) }, connect: (config) => new FakePC(config) as unknown as RTCPeerConnection };
  const phone = new Phone(line, options);
  phones.push(phone);
  phone.start();
  const overs: string[] = [];
  phone.on("over", ({ reason }) => overs.push(reason));
  return {
    line, phone, kept, overs,
    get call() {
      if (!phone.call) throw new Error(`${uid} is in no call`);
      return phone.call;
    },
    get pc() {
      return [...this.call.connections.values()][0] as unknown as FakePC;
    },
  };
}

async function talking(): Promise<[Someone, Someone]> {
  const [ann, bob] = [someone("ann"), someone("bob")];
  await settle();
  await ann.phone.dial({ to: ["bob"], media: "video" });
  await settle();
  await bob.phone.answer(bob.phone.ringing[0]?.id ?? "", { camera: true });
  await settle();
  expect(bob.pc.other).toBe(ann.pc);
  expect([ann.pc.connectionState, bob.pc.connectionState]).toEqual(["connected", "connected"]);
  return [ann, bob];
}

it("two connect: the later one offers, each hears of the other's candidates, both say so", async () => {
  const [ann, bob] = await talking();
  expect([ann.pc.offers, bob.pc.offers]).toEqual([0, 1]);
  expect(ann.pc.candidates).toEqual([`candidate:${bob.pc.id} 1`]);
  expect(bob.pc.candidates).toEqual([`candidate:${ann.pc.id} 1`]);
  for (const { pc } of [ann, bob]) {
    expect(pc.getTransceivers().map((t) => [t.direction, t.sender.track?.kind])).toEqual([["sendrecv", "audio"], ["sendrecv", "video"], ["sendrecv", undefined]]);
  }
  expect(server.call?.state).toBe("active");
  expect([server.count("ann", "call.connected"), server.count("bob", "call.connected")]).toEqual([1, 1]);
  await settle(10_000);
  expect([server.count("ann", "call.heartbeat"), server.count("ann", "call.stats")]).toEqual([1, 1]);
});

it("heartbeats run while it rings, and only the one who may be answered makes connections", async () => {
  const ann = someone("ann");
  await ann.phone.dial({ to: ["bob"], media: "audio" });
  await settle(20_100);
  expect(server.count("ann", "call.heartbeat")).toBe(2);
  expect(FakePC.all).toEqual([]);
  expect(devices.opened.map((t) => t.kind)).toEqual(["audio"]);
});

it("candidates that come before their description wait for it", async () => {
  const [ann, bob] = await talking();
  const { generation } = ann.call;
  const signal = { call: ann.call.id, from: "bob", generation: bob.call.generation, to_generation: generation };
  const before = ann.pc.candidates.length;
  ann.call.take({ "call.signal": { ...signal, negotiation: 2, candidates: [{ candidate: "early", sdpMid: "0" }] } });
  await settle();
  expect(ann.pc.candidates.length).toBe(before);
  ann.call.take({ "call.signal": { ...signal, negotiation: 2, description: { type: "offer", sdp: bob.pc.localDescription?.sdp ?? "" } } });
  await settle();
  expect(ann.pc.candidates).toContain("early");
  // Twice the same, and what is of an older negotiation, or generation: nothing of it counts.
  const answers = server.log.filter((l) => l.uid === "ann" && l.params.description?.type === "answer").length;
  ann.call.take({ "call.signal": { ...signal, negotiation: 2, description: { type: "offer", sdp: bob.pc.localDescription?.sdp ?? "" } } });
  ann.call.take({ "call.signal": { ...signal, negotiation: 1, candidates: [{ candidate: "late", sdpMid: "0" }] } });
  ann.call.take({ "call.signal": { ...signal, to_generation: generation - 1, negotiation: 3, candidates: [{ candidate: "old", sdpMid: "0" }] } });
  await settle();
  expect(server.log.filter((l) => l.uid === "ann" && l.params.description?.type === "answer").length).toBe(answers);
  expect(ann.pc.candidates).not.toContain("late");
});

it("two that restart at once end with one negotiation, and no new connection", async () => {
  const [ann, bob] = await talking();
  const [before, after] = [ann.pc, bob.pc];
  globalThis.dispatchEvent?.(new Event("online"));
  for (const { pc } of [ann, bob]) {
    pc.restartIce();
    pc.to("disconnected");
  }
  await settle(5000);
  expect([ann.pc, bob.pc]).toEqual([before, after]);
  expect([ann.pc.signalingState, bob.pc.signalingState]).toEqual(["stable", "stable"]);
  expect([ann.pc.connectionState, bob.pc.connectionState]).toEqual(["connected", "connected"]);
});

it("disconnected for 3 s restarts ICE, for less it doesn't", async () => {
  const [, bob] = await talking();
  bob.pc.to("disconnected");
  await settle(2000);
  bob.pc.to("connected");
  await settle(3000);
  expect(bob.pc.restarts).toBe(0);
  bob.pc.to("disconnected");
  await settle(3100);
  expect(bob.pc.restarts).toBe(1);
  expect(bob.pc.connectionState).toBe("connected");
});

it.each(["offer", "answer"])("a lost %s is made good", async (type) => {
  let lost = 0;
  server.lose = (s) => s.description?.type === type && lost++ === 0;
  const [ann, bob] = [someone("ann"), someone("bob")];
  await ann.phone.dial({ to: ["bob"], media: "video" });
  await settle();
  await bob.phone.answer(server.call?.call ?? "", { camera: true });
  await settle(40_000);
  expect(lost).toBeGreaterThan(0);
  expect([ann.pc.connectionState, bob.pc.connectionState]).toEqual(["connected", "connected"]);
  expect(bob.pc.other).toBe(ann.pc);
});

it.each(["ann", "bob"])("%s gets another connection: the leg is taken again, the media stays, his offer comes next", async (who) => {
  const [ann, bob] = await talking();
  const pcs = [ann.pc, bob.pc];
  const [one] = who === "ann" ? [ann, bob] : [bob, ann];
  const offers = one.pc.offers;
  one.line.reconnect();
  await settle();
  expect(one.call.generation).toBe(2);
  expect([ann.pc, bob.pc]).toEqual(pcs);
  expect(one.pc.offers).toBe(offers + 1);
  expect(server.log.filter((l) => l.params.description?.type === "offer").at(-1)).toMatchObject({ uid: who, params: { negotiation: 2, generation: 2 } });
  expect([ann.pc.signalingState, bob.pc.signalingState]).toEqual(["stable", "stable"]);
});

it("both get another connection at once, and both end connected", async () => {
  const [ann, bob] = await talking();
  ann.line.reconnect();
  bob.line.reconnect();
  await settle(40_000);
  expect([ann.call.generation, bob.call.generation]).toEqual([2, 2]);
  expect([ann.pc.signalingState, bob.pc.signalingState]).toEqual(["stable", "stable"]);
  expect(bob.pc.other).toBe(ann.pc);
});

it.each(["ann", "bob"])("%s loads the page anew: another peer connection takes the old one's place on both sides", async (who) => {
  const [ann, bob] = await talking();
  const [one, other] = who === "ann" ? [ann, bob] : [bob, ann];
  const old = other.pc;
  const id = one.call.id;
  const kept = { value: one.kept.value };
  one.phone.close();
  expect(server.count(who, "call.leaving")).toBe(0);
  await settle(0);
  expect(server.count(who, "call.leaving")).toBe(1);
  const again = someone(who, kept);
  await settle(1000);
  expect(again.call.id).toBe(id);
  expect(again.call.generation).toBe(2);
  expect(other.pc).not.toBe(old);
  expect(old.connectionState).toBe("closed");
  expect(again.pc.other).toBe(other.pc);
  expect(other.pc.connectionState).toBe("connected");
  expect(server.log.find((l) => l.uid === who && l.params.generation === 2 && l.params.description)?.params.negotiation).toBe(1);
});

it("a page loaded anew on the same connection is noticed by its session's id", async () => {
  const [ann, bob] = await talking();
  const old = ann.pc;
  const sdp = "v=0\r\no=- 999 1 IN IP4 0.0.0.0\r\n";
  ann.call.take({ "call.signal": { call: ann.call.id, from: "bob", generation: bob.call.generation, to_generation: 1, negotiation: 1, description: { type: "offer", sdp } } });
  await settle(100);
  expect(ann.pc).not.toBe(old);
  expect(ann.pc.remoteDescription?.sdp).toBe(sdp);
});

it("another device takes the leg: media ends here, and can be taken back", async () => {
  const [ann, bob] = await talking();
  server.change(() => Object.assign(server.leg("bob"), { generation: 2, holder: "tablet" }), "active");
  await settle();
  expect(bob.call.place).toBe("moved");
  expect(bob.call.connections.size).toBe(0);
  await bob.call.takeBack();
  await settle(1000);
  expect(bob.call.place).toBe("here");
  expect(bob.call.generation).toBe(3);
  expect(bob.pc.other).toBe(ann.pc);
});

it("a leg that can't be taken back, or isn't waited for, leaves no device on", async () => {
  const [, bob] = await talking();
  server.change(() => Object.assign(server.leg("bob"), { generation: 2, holder: "tablet" }), "active");
  await settle();
  const answer = server.answer.bind(server);
  let refuse = true;
  vi.spyOn(server, "answer").mockImplementation((from, method, p) => {
    if (method === "call.accept" && refuse) throw new HalleyError("forbidden", "removed");
    const reply = answer(from, method, p);
    if (method === "call.accept") bob.call.close();
    return reply;
  });
  const off = () => expect(devices.opened.filter((t) => t.readyState === "live")).toHaveLength(2); // ann's
  off();
  await expect(bob.call.takeBack()).rejects.toMatchObject({ code: "forbidden" });
  off();
  refuse = false;
  const { call } = bob;
  await call.takeBack();
  expect(call.place).toBe("over");
  await settle();
  expect(server.count("bob", "call.hangup")).toBe(1);
});

it("that media flows is told again when the leg was taken anew while it was told", async () => {
  const answer = server.answer.bind(server);
  let cut = false;
  const [ann, bob] = [someone("ann"), someone("bob")];
  vi.spyOn(server, "answer").mockImplementation((from, method, p) => {
    if (method === "call.connected" && from.uid === "bob") {
      if (!cut) {
        // Lost with its connection: it is asked again by the next one, for a generation that is over by then.
        cut = true;
        bob.line.reconnect();
        throw new HalleyError("unavailable", "gone");
      }
      if (p.generation !== server.leg("bob").generation) throw new HalleyError("call_taken", "another generation");
    }
    return answer(from, method, p);
  });
  await settle();
  await ann.phone.dial({ to: ["bob"], media: "video" });
  await settle();
  await bob.phone.answer(bob.phone.ringing[0]?.id ?? "", { camera: true });
  await settle(5000);
  expect(bob.call.generation).toBe(2);
  expect([server.leg("ann").state, server.leg("bob").state]).toEqual(["joined", "joined"]);
});

it("no connection is made before it is known whether addresses are to be kept secret", async () => {
  const answer = server.answer.bind(server);
  let down = true;
  vi.spyOn(server, "answer").mockImplementation((from, method, p) => {
    if (method === "ice.servers" && down) throw new HalleyError("rate_limited", "too often", { retry: true });
    return answer(from, method, p);
  });
  server.servers = { servers: [{ urls: ["turn:x"] }], turn: true, relay_only: true };
  const [ann, bob] = [someone("ann"), someone("bob")];
  await settle();
  await ann.phone.dial({ to: ["bob"], media: "video" });
  await settle();
  await bob.phone.answer(bob.phone.ringing[0]?.id ?? "", { camera: true });
  await settle(2000);
  expect(FakePC.all).toEqual([]);
  down = false;
  await settle(5000);
  expect(FakePC.all.map((pc) => pc.config.iceTransportPolicy)).toEqual(["relay", "relay"]);
});

it("who calls whom he talks to already, since his page is new, is connected at once", async () => {
  const [ann, bob] = await talking();
  const old = bob.pc;
  const again = server.line("ann");
  server.change(() => Object.assign(server.leg("ann"), { generation: 2, holder: again.connection }), "active");
  const phone = new Phone(again, { kept: { load: () => null, save: () => {} }, connect: (config) => new FakePC(config) as unknown as RTCPeerConnection });
  phones.push(phone);
  phone.start();
  ann.phone.close();
  await phone.dial({ to: ["bob"], media: "video" });
  await settle(1000);
  expect(bob.pc).not.toBe(old);
  expect(bob.pc.connectionState).toBe("connected");
});

it("a call that the server forgot goes on under its id, with its media", async () => {
  const [ann, bob] = await talking();
  const id = ann.call.id;
  const pcs = [ann.pc, bob.pc];
  server.call = undefined;
  server.turn = 0;
  await settle(11_000);
  expect(server.log.filter((l) => l.method === "call.invite").at(-1)?.params).toMatchObject({ call: id, resumed: true });
  expect(server.call).toMatchObject({ call: id });
  expect([server.leg("ann").state, server.leg("bob").state]).not.toContain("invited");
  await settle(30_000);
  expect([ann.call.place, bob.call.place]).toEqual(["here", "here"]);
  expect(pcs.every((pc) => pc.connectionState !== "failed")).toBe(true);
  expect([ann.pc.connectionState, bob.pc.connectionState]).toEqual(["connected", "connected"]);
  expect([ann.pc.signalingState, bob.pc.signalingState]).toEqual(["stable", "stable"]);
  expect([server.leg("ann").state, server.leg("bob").state]).toEqual(["joined", "joined"]);
});

it("what is no newer is dropped, and where one is missing it asks", async () => {
  const [ann] = await talking();
  const { version, state } = ann.call.info;
  ann.call.take({ "call.state": { call: { ...server.view(), state: "inviting" } } });
  expect(ann.call.info).toMatchObject({ version, state });
  const asked = server.count("ann", "call.current");
  ann.call.take({ "call.leg": { call: ann.call.id, version: version + 1, leg: { ...server.leg("bob"), sends: { hand: true } } } });
  await settle(0);
  expect(server.count("ann", "call.current")).toBe(asked);
  expect(ann.call.info.legs[1]?.sends.hand).toBe(true);
  ann.call.take({ "call.leg": { call: ann.call.id, version: version + 3, leg: server.leg("bob") } });
  await settle();
  expect(server.count("ann", "call.current")).toBe(asked + 1);
});

it("credentials are renewed when the server says, on the connections that there are", async () => {
  server.servers = { servers: [{ urls: ["turn:a"], username: "1" }], renew_at: Date.now() + 300_000, turn: true };
  const [ann] = await talking();
  const { pc } = ann;
  server.servers = { servers: [{ urls: ["turn:a"], username: "2" }], turn: true };
  await settle(301_000);
  expect(ann.pc).toBe(pc);
  expect(pc.config.iceServers).toEqual([{ urls: ["turn:a"], username: "2" }]);
  expect(pc.connectionState).toBe("connected");
  expect(pc.signalingState).toBe("stable");
});

it("credentials are renewed in time by a clock that is an hour behind, and not without pause by one that is ahead", async () => {
  for (const wrong of [3_600_000, -3_600_000]) {
    const renew_at = Date.now() + wrong + 240_000;
    server.servers = { servers: [{ urls: ["turn:a"], username: "1" }], renew_at, expires_at: renew_at + 60_000, turn: true };
    const line = server.line("ann");
    const { renewAt } = await iceServers(line, Date.now, () => true);
    expect(renewAt - Date.now()).toBe(240_000);
  }
});

it("mute, camera and screen are told, without negotiating", async () => {
  const [ann, bob] = await talking();
  const offers = server.log.filter((l) => l.params.description).length;
  ann.call.media.mute(true);
  await ann.call.media.camera(false);
  await ann.call.media.screen(true);
  await settle();
  expect(bob.call.info.legs[0]?.sends).toEqual({ audio: false, video: false, screen: true, hand: false });
  expect(ann.pc.getTransceivers().map((t) => t.sender.track?.device)).toEqual(["default", undefined, "screen"]);
  expect(ann.pc.getTransceivers()[2].sender.encodings[0].maxBitrate).toBe(2_500_000);
  expect(server.log.filter((l) => l.params.description).length).toBe(offers);
});

it("who speaks is told, and stays until another one does; one's own loudness is, but while one is muted", async () => {
  const [ann, bob] = await talking();
  let heard: Heard = { levels: new Map(), speaker: "" };
  ann.call.on("levels", (now) => (heard = now));
  await settle(600);
  expect(heard).toEqual({ levels: new Map([["bob", 0], ["ann", 0.4]]), speaker: "" });
  ann.pc.getTransceivers()[0].receiver.level = 0.3;
  await settle(600);
  expect(heard.speaker).toBe("bob");
  ann.pc.getTransceivers()[0].receiver.level = 0;
  ann.call.media.mute(true);
  await settle(600);
  expect(heard).toEqual({ levels: new Map([["bob", 0], ["ann", 0]]), speaker: "bob" });
  expect(bob.call.place).toBe("here");
});

it("hanging up ends it at once on both sides, with all devices let go", async () => {
  const [ann, bob] = await talking();
  void ann.call.hangup();
  expect(ann.overs).toEqual(["hangup"]);
  await settle();
  expect(bob.overs).toEqual(["completed"]);
  expect(devices.opened.every((t) => t.readyState === "ended")).toBe(true);
  expect(FakePC.all.every((pc) => pc.connectionState === "closed")).toBe(true);
  expect([ann.kept.value, bob.kept.value]).toEqual([null, null]);
  expect(vi.getTimerCount()).toBe(0);
});

it("a group: each to each, the late one offers, and what each gets falls and rises with their number", async () => {
  const [ann, bob, cleo] = [someone("ann"), someone("bob"), someone("cleo")];
  await settle();
  await ann.phone.dial({ to: ["bob", "cleo"], media: "video" });
  await settle();
  const id = server.call?.call ?? "";
  const most = () => ann.pc.getTransceivers()[1].sender.encodings[0].maxBitrate;
  await bob.phone.answer(id, { camera: true });
  await settle();
  const alone = most();
  expect(cleo.phone.ringing).toHaveLength(1);
  await cleo.phone.answer(id, { camera: true });
  await settle();
  for (const { call } of [ann, bob, cleo]) expect([...call.connections.values()].map((pc) => pc.connectionState)).toEqual(["connected", "connected"]);
  expect([...cleo.call.connections.values()].map((pc) => (pc as unknown as FakePC).offers)).toEqual([1, 1]);
  expect(most()).toBeLessThan(alone);

  void cleo.call.hangup();
  await settle();
  for (const { call } of [ann, bob]) expect(call.connections.size).toBe(1);
  expect(ann.pc.connectionState).toBe("connected");
  expect(most()).toBe(alone);
  // Whoever left may come again: by another place in the order, and another connection.
  Object.assign(server.leg("cleo"), { order: 0 });
  await cleo.phone.answer(id, { camera: false });
  await settle();
  for (const { call } of [ann, bob, cleo]) expect([...call.connections.values()].map((pc) => pc.connectionState)).toEqual(["connected", "connected"]);
});

interface Pair {
  ann: Someone;
  bob: Someone;
}

/** Something befalls one of two. */
async function befall(pair: Pair, random: () => number): Promise<void> {
  const name = random() < 0.5 ? "ann" : "bob";
  const who = pair[name];
  const what = random();
  if (what < 0.35) who.line.reconnect();
  else if (what < 0.5) who.pc.to("disconnected");
  else if (what < 0.6) who.pc.to("failed");
  else if (what < 0.75) await who.call.media.screen(random() < 0.5);
  else {
    const kept = { value: who.kept.value };
    who.phone.close();
    pair[name] = someone(name, kept);
    await settle(300);
  }
}

function well({ ann, bob }: Pair): void {
  expect([ann.call.place, bob.call.place]).toEqual(["here", "here"]);
  expect([ann.pc.signalingState, bob.pc.signalingState]).toEqual(["stable", "stable"]);
  expect(bob.pc.other).toBe(ann.pc);
  expect([ann.pc.connectionState, bob.pc.connectionState]).toEqual(["connected", "connected"]);
  expect(FakePC.all.filter((pc) => pc.connectionState !== "closed")).toHaveLength(2);
}

function randomOf(seed: number): () => number {
  let state = seed * 2_654_435_761;
  return () => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return ((state >>> 8) & 0xffffff) / 0x1000000;
  };
}

const seeds = Array.from({ length: 12 }, (_, i) => i + 1);

it.each(seeds)("whatever happens at once (seed %d), all is well before anybody's patience ends", async (seed) => {
  const random = randomOf(seed);
  const [ann, bob] = await talking();
  const pair = { ann, bob };
  for (let i = 0; i < 6; i++) {
    await befall(pair, random);
    await settle(random() < 0.5 ? 0 : random() * 20);
    await befall(pair, random);
    await settle(6000);
    well(pair);
  }
});

it.each(seeds)("whatever happens while a quarter of the signals is lost (seed %d), all is well in the end", async (seed) => {
  const random = randomOf(seed);
  let lossy = true;
  const [ann, bob] = await talking();
  const pair = { ann, bob };
  server.lose = () => lossy && random() < 0.25;
  for (let i = 0; i < 12; i++) {
    await befall(pair, random);
    await settle(random() * 3000);
  }
  lossy = false;
  await settle(60_000);
  well(pair);
});
